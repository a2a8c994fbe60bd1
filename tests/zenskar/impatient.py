"""The web worker with shorter times, for tests that wait until they are over."""

from __future__ import annotations

from zenskar.web_worker import DeadlineThreadWorker


class ImpatientWorker(DeadlineThreadWorker):
    silence = 0.5
    request_limit = 1.5
