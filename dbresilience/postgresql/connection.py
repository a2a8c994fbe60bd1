"""A psycopg connection on which every wait has an end."""

from __future__ import annotations

import time
from collections.abc import Sequence
from math import inf
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import ref

import psycopg
from psycopg import errors, generators
from psycopg.abc import PQGen
from psycopg.pq import ConnStatus, ExecStatus, TransactionStatus
from psycopg.pq.abc import PGresult

from dbresilience.errors import AnswerTimeout
from dbresilience.observations.statements import new_trail

if TYPE_CHECKING:
    from dbresilience.postgresql.borrowing import Borrowing

RV = TypeVar("RV")

CANCEL_TIMEOUT = 1.0
"""Seconds that a server may take to cancel a statement that went past its deadline."""

POLITENESS = 0.1
"""The same for a transaction that had a deadline, which is over by then."""

_INTERVAL = 0.1
_OK = int(ConnStatus.OK)
_ANSWERED = frozenset({TransactionStatus.IDLE, TransactionStatus.INTRANS, TransactionStatus.INERROR})
_FAREWELLS = frozenset({"FATAL", "PANIC"})

# Called for every answer; finding it through super() takes a third of what it does.
_wait = psycopg.Connection.wait


class Connection(psycopg.Connection[Any]):
    """A connection that gives up on a server that does not answer.

    The server's own time-outs end a statement only while server and network live. What follows is the client's side:
    without it a call behind a silent peer ends when TCP gives up, or never.

    Attributes:
        patience: seconds that one answer may take; None waits for ever.
        deadline: monotonic instant by which the transaction under way must be over; None for no such instant.
        politeness: seconds that the server may take to cancel a statement when that has passed.
        unlimited: whether its time-out for statements is lifted for a while; such a session is neither exchanged for
            another one nor lent to anybody else.
        lent_at: monotonic instant of the last loan.
        returned_at: the same of the last return to the pool.
        borrowing: who holds it; None in the pool.
        reference: weak, to itself; by it the pool hears of its end. None before the first loan.
        trail: what the transaction under way ran, or the last one, without parameters; the latest last.
        slow_from: seconds from which on a statement is slow; None when statements are not observed.
        observed_factory: makes cursors in place of ``cursor_factory`` that leave word of what they run.
        farewells: SQLSTATEs with which the server said that it ends the session.
        history: which the session writes to, as of when it was made; empty when it was not asked.
    """

    patience: float | None = None
    deadline: float | None = None
    politeness: float = POLITENESS
    unlimited: bool = False
    lent_at: float = -inf
    returned_at: float = -inf
    borrowing: Borrowing | None = None
    reference: ref[Connection] | None = None
    slow_from: float | None = None
    history: str = ""
    farewells: Sequence[str | None] = ()
    observed_factory: type[psycopg.Cursor[Any]] | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.trail = new_trail()

    def cursor(self, name: str = "", **options: Any) -> Any:
        """As psycopg's; by default one that leaves word of its statements in ``trail``."""
        if name or options or self.observed_factory is None:
            return super().cursor(name, **options)
        self._check_connection_ok()
        return self.observed_factory(self, row_factory=self.row_factory)

    def wait(self, gen: PQGen[RV], interval: float = _INTERVAL, timeout: float | None = None) -> RV:
        """Run the exchange with the server to its end.

        Args:
            gen: the exchange.
            interval: seconds between two looks for Ctrl-C.
            timeout: seconds; None takes what is left of ``patience`` and ``deadline``.

        Raises:
            AnswerTimeout: the server did not answer in time; the connection is closed.
        """
        if timeout is not None:
            return _wait(self, gen, interval, timeout)
        while True:
            limit = self.patience
            if self.deadline is not None:
                left = max(0.0, self.deadline - time.monotonic())
                limit = left if limit is None else min(left, limit)
            try:
                return _wait(self, gen, interval, limit)
            except errors._WaitTimeout:
                # Waiting for notifications is no wait for an answer.
                if self.pgconn.transaction_status == TransactionStatus.ACTIVE:
                    return self._give_up(gen)
            except psycopg.Error:
                raise
            except BaseException:
                # Raised by a handler of signals, as Celery's soft time limit is. Of Ctrl-C psycopg takes care itself.
                if self.pgconn.transaction_status == TransactionStatus.ACTIVE:
                    self._interrupt(gen)
                raise

    def exchange(self, command: bytes, timeout: float | None = None) -> list[PGresult]:
        """Send statements as they are, in one message, and return their results.

        Raises:
            psycopg.Error: what the server said, or that it said nothing in time.
        """
        with self.lock:
            self.pgconn.send_query(command)
            results: list[PGresult] = self.wait(generators.execute(self.pgconn), timeout=timeout)
        for result in results:
            if result.status == ExecStatus.FATAL_ERROR:
                raise errors.error_from_result(result, encoding=self.info.encoding)
        return results

    def seems_gone(self) -> bool:
        """Whether the idle connection is visibly closed, by us or by the server, or the server has said farewell.

        Costs one read of the socket and no exchange. A peer that fell silent is not found by it. Looking with ``poll``
        would let go of the interpreter's lock, for which all other threads wait.
        """
        try:
            self.pgconn.consume_input()
            # Has what came be parsed; a farewell arrives as a notice, some time before the end of the stream.
            self.pgconn.is_busy()
        except psycopg.Error:
            return True
        return bool(self.farewells or self.pgconn.status != _OK)

    def watch_for_farewell(self) -> None:
        """Have ``farewells`` kept when the server ends the session while nothing runs in it."""
        heard: list[str | None] = []
        self.farewells = heard

        # Knows the list alone: a handler that knew the connection would keep one from being collected that was lost.
        def heed(notice: errors.Diagnostic) -> None:
            if notice.severity_nonlocalized in _FAREWELLS:
                heard.append(notice.sqlstate)

        self.add_notice_handler(heed)

    def answers(self, timeout: float) -> bool:
        """Whether the server answers an empty statement within ``timeout`` seconds."""
        try:
            self.exchange(b"", timeout)
        except psycopg.Error:
            return False
        return self.pgconn.transaction_status == TransactionStatus.IDLE

    def _give_up(self, gen: PQGen[RV]) -> RV:
        """End a statement that is over its time: cancel it, or drop the connection when that goes unanswered too."""
        # A caller that named an instant waits no longer than it takes to be polite.
        politeness = CANCEL_TIMEOUT if self.deadline is None else self.politeness
        try:
            self.cancel_safe(timeout=politeness)
            return _wait(self, gen, _INTERVAL, politeness)
        except psycopg.Error as exc:
            if self.pgconn.transaction_status in _ANSWERED:
                # That it was cancelled, as a rule.
                raise
            self.close()
            counted = getattr(self._pool, "counted", None)
            if counted is not None:
                counted["answer_timeouts"] += 1
            raise AnswerTimeout(str(AnswerTimeout.__doc__)) from exc

    def _interrupt(self, gen: PQGen[RV]) -> None:
        """End a statement whose caller waits no longer, so that it holds no locks and its session can be used."""
        try:
            self.cancel_safe(timeout=CANCEL_TIMEOUT)
            _wait(self, gen, _INTERVAL, CANCEL_TIMEOUT)
        except psycopg.Error:
            if self.pgconn.transaction_status not in _ANSWERED:
                self.close()
