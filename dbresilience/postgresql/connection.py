"""A psycopg connection on which every wait has an end."""

from __future__ import annotations

import select
import time
from math import inf
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg
from psycopg import errors, generators
from psycopg.abc import PQGen
from psycopg.pq import ConnStatus, ExecStatus, TransactionStatus
from psycopg.pq.abc import PGresult

from dbresilience.errors import AnswerTimeout

if TYPE_CHECKING:
    from dbresilience.postgresql.borrowing import Borrowing

RV = TypeVar("RV")

CANCEL_TIMEOUT = 1.0
"""Seconds that a server may take to cancel a statement that went past its deadline."""

_INTERVAL = 0.1


class Connection(psycopg.Connection[Any]):
    """A connection that gives up on a server that does not answer.

    The server's own time-outs end a statement only while server and network live. What follows is the client's side:
    without it a call behind a silent peer ends when TCP gives up, or never.

    Attributes:
        patience: seconds that one answer may take; None waits for ever.
        deadline: monotonic instant by which the transaction under way must be over; None for no such instant.
        returned_at: monotonic instant of the last return to the pool.
        borrowing: who holds it; None in the pool.
        last_statement: the statement last begun, without its parameters.
        recording_factory: makes cursors in place of ``cursor_factory`` that leave word of what they run.
        history: which the session writes to, as of when it was made; empty when it was not asked.
    """

    patience: float | None = None
    deadline: float | None = None
    returned_at: float = -inf
    borrowing: Borrowing | None = None
    last_statement: Any = ""
    history: str = ""
    _poll: select.poll | None = None
    recording_factory: type[psycopg.Cursor[Any]] | None = None

    def cursor(self, name: str = "", **options: Any) -> Any:
        """As psycopg's; by default one that leaves word of its statements in ``last_statement``."""
        if name or options or self.recording_factory is None:
            return super().cursor(name, **options)
        self._check_connection_ok()
        return self.recording_factory(self, row_factory=self.row_factory)

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
            return super().wait(gen, interval, timeout)
        while True:
            limit = self.patience
            if self.deadline is not None:
                left = max(0.0, self.deadline - time.monotonic())
                limit = left if limit is None else min(left, limit)
            try:
                return super().wait(gen, interval, limit)
            except errors._WaitTimeout:
                # Waiting for notifications is no wait for an answer.
                if self.pgconn.transaction_status == TransactionStatus.ACTIVE:
                    return self._give_up(gen)

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
        """Whether the idle connection is closed, or has something to read, which is its end more often than not.

        Costs a system call and no exchange; a peer that fell silent is not found by it.
        """
        if self.pgconn.status != ConnStatus.OK:
            return True
        if self._poll is None:
            self._poll = select.poll()
            self._poll.register(self.pgconn.socket, select.POLLIN)
        return bool(self._poll.poll(0))

    def answers(self, timeout: float) -> bool:
        """Whether the server answers an empty statement within ``timeout`` seconds."""
        try:
            self.exchange(b"", timeout)
        except psycopg.Error:
            return False
        return self.pgconn.transaction_status == TransactionStatus.IDLE

    def _give_up(self, gen: PQGen[RV]) -> RV:
        """End a statement that is over its time: cancel it, or drop the connection when that goes unanswered too."""
        try:
            self.cancel_safe(timeout=CANCEL_TIMEOUT)
            return super().wait(gen, _INTERVAL, CANCEL_TIMEOUT)
        except errors.QueryCanceled:
            raise
        except psycopg.Error as exc:
            self.close()
            raise AnswerTimeout(str(AnswerTimeout.__doc__)) from exc
