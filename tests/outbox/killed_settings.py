"""The project's settings with the subscriber that kills its process, for ``killed``."""

from __future__ import annotations

from zenskar.settings import *  # noqa: F403

OUTBOX_SUBSCRIBERS = ["tests.outbox.killed.Fragile"]
