"""The project's settings with the handler of ``test_broker``, and that handler: a table of effects.

A worker of the test runs with these settings as ``manage.py kafka_worker``, in a process of its own.
"""

from __future__ import annotations

from zenskar.settings import *  # noqa: F403

KAFKA_HANDLERS = ["tests.outbox.consuming.ledger"]
OUTBOX_BATCH_SIZE = 20
