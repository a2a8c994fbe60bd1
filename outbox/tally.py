"""What workers did, by topic, added up for all of them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from typing import Any, Final

from django.db import connection

TALLY_SECONDS: Final = 1.0
# Sorted by topic, so that two workers that add to the same rows never wait in a circle.
TALLY_SQL: Final = """
INSERT INTO outbox_topic_figure AS f (subscription_id, topic, processed, errors, retries)
SELECT %(name)s, topic, processed, errors, retries
  FROM unnest(%(topics)s::text[], %(processed)s::bigint[], %(errors)s::bigint[], %(retries)s::bigint[])
    AS t (topic, processed, errors, retries) ORDER BY topic
ON CONFLICT (subscription_id, topic) DO UPDATE
   SET processed = f.processed + excluded.processed, errors = f.errors + excluded.errors,
       retries = f.retries + excluded.retries
"""


class Tally:
    """What one worker did, by topic, until it is added to the subscriber's figures.

    Args:
        name: of the subscriber.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._processed: Counter[str] = Counter()
        self._errors: Counter[str] = Counter()
        self._retries: Counter[str] = Counter()
        self._next_write = 0.0

    def add(self, through: Iterable[str], failed: Iterable[str], retried: Iterable[str] = ()) -> None:
        """Count events by their topics: those that went through, those that failed, those that were tried again."""
        self._processed.update(through)
        self._errors.update(failed)
        self._retries.update(retried)

    def write_due(self) -> None:
        """Write what was counted, once a second."""
        if time.monotonic() >= self._next_write:
            self.write()

    def write(self) -> None:
        """Write what was counted; in a statement of its own, so that workers never wait for each other's settles."""
        self._next_write = time.monotonic() + TALLY_SECONDS
        topics = sorted(set(self._processed) | set(self._errors) | set(self._retries))
        if not topics:
            return
        values: dict[str, Any] = {
            "name": self._name,
            "topics": topics,
            "processed": [self._processed[topic] for topic in topics],
            "errors": [self._errors[topic] for topic in topics],
            "retries": [self._retries[topic] for topic in topics],
        }
        with connection.cursor() as cursor:
            cursor.execute(TALLY_SQL, values)
        for counter in (self._processed, self._errors, self._retries):
            counter.clear()
