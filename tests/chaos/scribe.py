"""A subscriber outside of transactions that appends what it is given to one file, as Kafka appends to a partition."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from outbox.events import Event
from outbox.subscribers import Deadline, Failure, Subscriber


class Scribe(Subscriber):
    name = "scribe"
    call_seconds = 0.5

    def deliver(self, events: Sequence[Event], deadline: Deadline) -> list[Failure]:
        path = Path(os.environ["CHAOS_FOLDER"]) / "delivered.txt"
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            for event in events:
                # The promise of a subscriber: nothing is begun after the deadline.
                if not deadline.remaining():
                    raise TimeoutError
                line = f"{event.payload['mark']} {event.aggregate_id} {event.sequence}\n"
                os.write(file, line.encode())
        finally:
            os.close(file)
        return []
