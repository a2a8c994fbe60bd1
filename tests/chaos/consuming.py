"""The project's settings with a handler that writes each message of the storm into a ledger without constraints.

A consumer of the proof runs with these settings as ``manage.py kafka_worker``, in a process of its own.
"""

from __future__ import annotations

from zenskar.settings import *  # noqa: F403

KAFKA_HANDLERS = ["tests.chaos.ledger"]
