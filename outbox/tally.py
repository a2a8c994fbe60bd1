"""What workers did, by topic, and how long their calls took, added up for all of them."""

from __future__ import annotations

import math
import time
from bisect import bisect_left
from collections import Counter, defaultdict
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
DURATIONS_SQL: Final = """
INSERT INTO outbox_duration_figure AS f (subscription_id, upto, calls, seconds)
SELECT %(name)s, upto, calls, seconds
  FROM unnest(%(upto)s::float8[], %(calls)s::bigint[], %(seconds)s::float8[]) AS t (upto, calls, seconds) ORDER BY upto
ON CONFLICT (subscription_id, upto) DO UPDATE
   SET calls = f.calls + excluded.calls, seconds = f.seconds + excluded.seconds
"""
# Seconds; each call is counted under the first bound that it does not exceed.
BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, math.inf)


class Tally:
    """What one worker did, until it is added to the subscriber's figures.

    Args:
        name: of the subscriber.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._processed: Counter[str] = Counter()
        self._errors: Counter[str] = Counter()
        self._retries: Counter[str] = Counter()
        self._calls: Counter[float] = Counter()
        self._seconds: defaultdict[float, float] = defaultdict(float)
        self._next_write = 0.0

    def add(self, through: Iterable[str], failed: Iterable[str], retried: Iterable[str] = ()) -> None:
        """Count events by their topics: those that went through, those that failed, those that were tried again."""
        self._processed.update(through)
        self._errors.update(failed)
        self._retries.update(retried)

    def took(self, seconds: float) -> None:
        """Count a call of the subscriber by the time that it took."""
        upto = BOUNDS[bisect_left(BOUNDS, seconds)]
        self._calls[upto] += 1
        self._seconds[upto] += seconds

    def write_due(self) -> None:
        """Write what was counted, once a second."""
        if time.monotonic() >= self._next_write:
            self.write()

    def write(self) -> None:
        """Write what was counted; in a statement of its own, so that workers never wait for each other's settles."""
        self._next_write = time.monotonic() + TALLY_SECONDS
        if self._calls:
            self._write_durations()
        topics = sorted(set(self._processed) | set(self._errors) | set(self._retries))
        if topics:
            self._write_topics(topics)

    def _write_durations(self) -> None:
        bounds = sorted(self._calls)
        values: dict[str, Any] = {
            "name": self._name,
            "upto": bounds,
            "calls": [self._calls[upto] for upto in bounds],
            "seconds": [self._seconds[upto] for upto in bounds],
        }
        with connection.cursor() as cursor:
            cursor.execute(DURATIONS_SQL, values)
        self._calls.clear()
        self._seconds.clear()

    def _write_topics(self, topics: list[str]) -> None:
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
