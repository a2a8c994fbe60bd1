"""The project's settings with the subscribers of ``stepwise``."""

from __future__ import annotations

from zenskar.settings import *  # noqa: F403

OUTBOX_SUBSCRIBERS = ["tests.outbox.stepwise.Outside", "tests.outbox.collecting.Ledger"]
OUTBOX_PAYLOAD_VALIDATORS = {}  # type: ignore[var-annotated]
