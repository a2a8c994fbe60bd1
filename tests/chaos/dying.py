"""Kafka's subscriber, whose process dies now and then just when the broker has acknowledged and nothing is settled."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from outbox.events import Event
from outbox.kafka import KafkaSubscriber
from outbox.subscribers import Deadline, Failure
from tests.chaos.book import Book

FOLDER: Final = Path(os.environ.get("CHAOS_FOLDER", "."))
SHARE: Final = 0.02


class DyingKafka(KafkaSubscriber):
    def deliver(self, events: Sequence[Event], deadline: Deadline) -> list[Failure]:
        failures = super().deliver(events, deadline)
        # By what was delivered, so that they die at the same places each time; at each of them once, or the event would
        # be one that kills whoever delivers it.
        if not failures and random.Random(events[0].id).random() < SHARE and _is_first(events[0].id):
            Book(FOLDER, "fault").write("acknowledged", os.getpid())
            os.kill(os.getpid(), signal.SIGKILL)
        return failures


def _is_first(event_id: int) -> bool:
    try:
        (FOLDER / f"died-{event_id}").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True
