"""Reading the log for several builds: once for those at the same place, and ahead while they apply what was read."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Final

from django.db import connection

from outbox.ordered import DETAILS, OrderedRead, ordered_read
from projections.projection import Projection


@dataclass(frozen=True, slots=True)
class Stretch:
    """A part of the log: what ``ordered_read`` is asked for.

    Attributes:
        topics: whose events.
        after: the last position that is done with.
        limit: positions at most.
        per_lane: places of one lane at a time.
        upto: the last position that is wanted.
    """

    topics: frozenset[str]
    after: int
    limit: int
    per_lane: int
    upto: int

    def is_read_by(self, read: OrderedRead) -> bool:
        """Whether more was there than was asked for, so that reading again would find the same."""
        return read.places >= self.limit or read.crowded

    def following(self, read: OrderedRead, limit: int, per_lane: int) -> Stretch:
        """The part that begins where this one was read to."""
        return replace(self, after=read.reached, limit=limit, per_lane=per_lane)


class LogReader:
    """Reads for one run of the builds of a thread; to be closed.

    Events never change and positions never move, so it does not matter when, and in which transaction, a full stretch
    was read: whether it may be applied is decided under the lock of the build's row. What came back short may be out of
    date a moment later: it is shared within one turn only, and never used when it was read ahead.

    A thread with a connection of its own reads ahead. It is started when a build is behind by more than one stretch.
    While one core applies the rows of a stretch, another one finds and writes out the next.

    Args:
        projections: those that will read. What one of them needs of an event is read for all that share its topics.
    """

    def __init__(self, projections: Iterable[Projection]) -> None:
        self._details: dict[frozenset[str], frozenset[str]] = {}
        for projection in projections:
            wanted = frozenset(DETAILS) if projection.reads is None else projection.reads
            self._details[projection.topics] = self._details.get(projection.topics, frozenset()) | wanted
        self._read: dict[Stretch, OrderedRead] = {}
        self._ahead: dict[Stretch, Future[OrderedRead]] = {}
        self._begun: dict[Stretch, Future[OrderedRead]] = {}
        self._thread: ThreadPoolExecutor | None = None

    def read(self, stretch: Stretch) -> OrderedRead:
        """The events of a stretch.

        Raises:
            django.db.Error: the database is in trouble.
        """
        read = self._read.get(stretch)
        if read is None:
            future = self._ahead.pop(stretch, None)
            read = future.result() if future is not None else None
            if read is None or not stretch.is_read_by(read):
                read = self._look(stretch)
            self._read[stretch] = read
        return read

    def begin(self, stretch: Stretch) -> None:
        """Begin to read what will be asked for in the next turn."""
        # Another connection would not see what an open transaction has written.
        if stretch in self._begun or connection.in_atomic_block:
            return
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="projections-log")
        self._begun[stretch] = self._thread.submit(self._look, stretch)

    def turn(self) -> None:
        """Forget what was read in this turn; what was begun is for the next one."""
        self._read.clear()
        for future in self._ahead.values():
            future.cancel()
        self._ahead, self._begun = self._begun, {}

    def close(self) -> None:
        """End the thread and give its connection back; a read that is under way is waited for."""
        thread, self._thread = self._thread, None
        if thread is not None:
            for future in (*self._ahead.values(), *self._begun.values()):
                future.cancel()
            thread.submit(_give_back)
            thread.shutdown()

    def _look(self, stretch: Stretch) -> OrderedRead:
        session_prepare()
        return ordered_read(
            after=stretch.after,
            limit=stretch.limit,
            topics=stretch.topics,
            upto=stretch.upto,
            per_lane=stretch.per_lane,
            details=self._details[stretch.topics],
        )


def _give_back() -> None:
    # ``connection`` is that of the thread that looks it up.
    connection.close()


class _Prepared(threading.local):
    # Weakly: a session that was lost is to be collected.
    session: Callable[[], object] = staticmethod(lambda: None)


_prepared: Final = _Prepared()


def session_prepare() -> None:
    """Switch off what makes wide reads slow, once in each session of this thread."""
    if connection.connection is None or connection.connection is not _prepared.session():
        # Plans of wide reads look costly enough to be compiled, which takes longer than to run them.
        with connection.cursor() as cursor:
            cursor.execute("SET jit = off")
        _prepared.session = weakref.ref(connection.connection)
