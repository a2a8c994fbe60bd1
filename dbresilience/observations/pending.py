"""What this process observed and nobody has written down yet."""

from __future__ import annotations

import datetime as dt
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Final

from dbresilience.observations.names import SPAN, TallyName

MOST_KEYS: Final = 2000
MOST_DEADLOCKS: Final = 1000
MOST_STATEMENTS: Final = 10_000

_SPAN_SECONDS: Final = int(SPAN.total_seconds())

# Looking up the value of an enumeration's member takes longer than counting.
_STATEMENT: Final = str(TallyName.STATEMENT.value)

TallyKey = tuple[int, str, str]


@dataclass(frozen=True, slots=True)
class ViolationKey:
    """Which constraint was violated in which span. ``column`` is what the error itself named, for NOT NULL."""

    span: int
    kind: str
    schema: str
    table: str
    constraint: str
    column: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadlockSeen:
    """What the victim knows of a deadlock.

    Attributes:
        at: when, by the clock of this process.
        monotonic: the same on the monotonic clock, to tell how long ago it was.
        detail: the server's account of who waits for whom; holds numbers of processes and relations alone.
        context: the server's words on what the statement was doing; names the relation.
        statements: what the transaction ran, the failed statement last; as they were sent, so never to be kept.
        code: where the failed statement was run.
    """

    at: dt.datetime
    monotonic: float
    detail: str
    context: str
    statements: tuple[str, ...]
    code: str


@dataclass(slots=True)
class Batch:
    """What was observed between two writings."""

    tallies: dict[TallyKey, list[int]] = field(default_factory=dict)
    violations: dict[ViolationKey, int] = field(default_factory=dict)
    deadlocks: deque[DeadlockSeen] = field(default_factory=lambda: deque(maxlen=MOST_DEADLOCKS))

    def __bool__(self) -> bool:
        return bool(self.tallies or self.violations or self.deadlocks)

    def add(self, key: TallyKey, count: int, microseconds: int, slowest: int) -> None:
        """Add up; too many different keys (an outage of hours, or texts without end) count as unrecorded."""
        entry = self.tallies.get(key)
        if entry is None:
            if len(self.tallies) >= MOST_KEYS:
                key = (key[0], TallyName.UNRECORDED.value, "")
            entry = self.tallies.setdefault(key, [0, 0, 0])
        entry[0] += count
        entry[1] += microseconds
        entry[2] = max(entry[2], slowest)

    def add_violation(self, key: ViolationKey, count: int) -> None:
        if key not in self.violations and len(self.violations) >= MOST_KEYS:
            self.add((key.span, TallyName.UNRECORDED.value, ""), count, 0, 0)
            return
        self.violations[key] = self.violations.get(key, 0) + count

    def take_back(self, older: Batch) -> None:
        """Add what could not be written."""
        for key, (count, microseconds, slowest) in older.tallies.items():
            self.add(key, count, microseconds, slowest)
        for violation, count in older.violations.items():
            self.add_violation(violation, count)
        self.deadlocks.extendleft(reversed(older.deadlocks))


class Pending:
    """The batch under way, shared by the threads of this process.

    Concurrency: one lock, held for a few instructions and never across input or output.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._batch = Batch()
        # Appending is one step for other threads.
        self._statements: deque[float] = deque()

    def count(self, name: TallyName, key: str = "", seconds: float = 0.0) -> None:
        """Count one more of this name and key, which took so long."""
        microseconds = int(seconds * 1_000_000)
        with self._lock:
            self._batch.add((span_now(), name.value, key), 1, microseconds, microseconds)

    def count_statement(self, seconds: float) -> None:
        """The same as ``count`` for a statement, which is what happens most: takes no lock, and is added up later."""
        self._statements.append(seconds)
        if len(self._statements) > MOST_STATEMENTS:
            with self._lock:
                self._add_up()

    def count_violation(self, *, kind: str, schema: str, table: str, constraint: str, column: str) -> None:
        """Count one violation of a constraint."""
        with self._lock:
            self._batch.add_violation(ViolationKey(span_now(), kind, schema, table, constraint, column), 1)

    def add_deadlock(self, seen: DeadlockSeen) -> None:
        """Keep a deadlock; beyond a thousand unwritten ones the oldest goes."""
        with self._lock:
            self._batch.deadlocks.append(seen)

    def take(self) -> Batch:
        """Everything so far, which is now the caller's to write, or to give back."""
        with self._lock:
            self._add_up()
            batch, self._batch = self._batch, Batch()
            return batch

    def give_back(self, batch: Batch) -> None:
        """Return what could not be written."""
        with self._lock:
            batch.take_back(self._batch)
            self._batch = batch

    def __bool__(self) -> bool:
        return bool(self._batch or self._statements)

    def _add_up(self) -> None:
        """Make one entry of the statements that were only noted; they count for the span in which that is done."""
        count = len(self._statements)
        if count:
            # Other threads may add to its end meanwhile, and nobody else takes from its front.
            seconds = [self._statements.popleft() for _ in range(count)]
            key = (span_now(), _STATEMENT, "")
            self._batch.add(key, count, int(sum(seconds) * 1_000_000), int(max(seconds) * 1_000_000))


def span_now() -> int:
    """Start of the ten minutes under way, in seconds since 1970."""
    return int(time.time()) // _SPAN_SECONDS * _SPAN_SECONDS


pending: Final = Pending()
