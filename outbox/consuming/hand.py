"""What a worker has in hand: written before it begins, so that a message that kills workers is found.

A worker that finds its partition's last batch unsettled by another worker takes half as many, until the killer stands
alone; the next one parks it, and the partition goes on. As parked it is tried with all others of its kind: counted
before each attempt, and dead after the last one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from django.db import connection

from outbox.models import InboxPartition

TAKE_SQL: Final = """
INSERT INTO outbox_inbox_partition AS p
       (consumer_group, topic, partition, worker, in_hand_from, in_hand_to, careful_size, careful_to)
VALUES (%(group)s, %(topic)s, %(partition)s, %(worker)s, %(first)s, %(last)s, %(size)s, %(to)s)
ON CONFLICT (consumer_group, topic, partition) DO UPDATE
   SET worker = excluded.worker, in_hand_from = excluded.in_hand_from, in_hand_to = excluded.in_hand_to,
       careful_size = excluded.careful_size, careful_to = excluded.careful_to
"""


@dataclass(slots=True)
class _Care:
    """How carefully a partition is read.

    Attributes:
        size: messages at a time, up to the offset ``to``.
        to: -1 when there is no need for care.
        killer: offset of the message on which a worker died when it stood alone; -1 for none.
    """

    size: int = 0
    to: int = -1
    killer: int = -1


class Hand:
    """The batches of one worker."""

    def __init__(self, group: str, worker: str) -> None:
        self._group = group
        self._worker = worker
        self._care: dict[tuple[str, int], _Care] = {}

    def take(self, topic: str, partition: int, offsets: Sequence[int]) -> tuple[int, bool]:
        """Say that the next messages of a partition are begun.

        Args:
            topic: without its prefix.
            partition: which.
            offsets: of the messages at hand.

        Returns:
            How many of them are begun, and whether a worker died on the first one, alone.
        """
        care = self._care.get((topic, partition))
        if care is None:
            care = self._care[topic, partition] = self._look(topic, partition)
        count = min(len(offsets), care.size) if offsets[0] <= care.to else len(offsets)
        values: dict[str, Any] = {
            "group": self._group,
            "topic": topic,
            "partition": partition,
            "worker": self._worker,
            "first": offsets[0],
            "last": offsets[count - 1],
            "size": care.size,
            "to": care.to,
        }
        with connection.cursor() as cursor:
            cursor.execute(TAKE_SQL, values)
        return count, offsets[0] == care.killer

    def forget(self, topic: str, partition: int) -> None:
        """The partition is another worker's now."""
        self._care.pop((topic, partition), None)

    def _look(self, topic: str, partition: int) -> _Care:
        row = InboxPartition.objects.filter(consumer_group=self._group, topic=topic, partition=partition).first()
        if row is None:
            return _Care()
        first, last = row.in_hand_from, row.in_hand_to
        if last < first or row.worker == self._worker:
            return _Care(row.careful_size, row.careful_to)
        if first == last:
            return _Care(1, max(last, row.careful_to), killer=first)
        # Offsets may have gaps: what was taken with care was no more than its size.
        taken = min(last - first + 1, row.careful_size) if first <= row.careful_to else last - first + 1
        return _Care(max(1, taken // 2), last)
