"""The loans of a pool: which are open, which ended, and which were lost with their borrower."""

from __future__ import annotations

import weakref

from dbresilience.postgresql.borrowing import Borrowing
from dbresilience.postgresql.connection import Connection
from dbresilience.postgresql.stats import Reservoir


class Loans:
    """The loans of one pool; its length is how many are open.

    Concurrency: each step on the two collections is one operation of the interpreter's, so no lock is held. A loan is
    ended by whoever takes it out of the open ones.

    Attributes:
        holds: how long the latest ones lasted.
    """

    def __init__(self) -> None:
        self.holds = Reservoir()
        self._open: dict[int, Borrowing] = {}
        self._lost: list[Borrowing] = []

    def __len__(self) -> int:
        return len(self._open)

    def lend(self, connection: Connection, now: float) -> None:
        """Note that the caller's thread has this connection from now on."""
        reference = connection.reference
        if reference is None:
            # Once for each connection, which is this pool's for its life.
            reference = connection.reference = weakref.ref(connection, self._vanished)
        borrowing = connection.borrowing = Borrowing(reference, now)
        self._open[id(borrowing)] = borrowing

    def take_back(self, connection: Connection, now: float) -> Borrowing | None:
        """Note that this connection came back; its loan, if there was one."""
        borrowing, connection.borrowing = connection.borrowing, None
        if borrowing is not None:
            # Who ended it meanwhile took the connection away, and may be about to say so.
            borrowing.reclaimed = not self.end(borrowing)
            self.holds.add(now - borrowing.since)
        return borrowing

    def end(self, borrowing: Borrowing) -> bool:
        """End a loan; False if it had ended."""
        return self._open.pop(id(borrowing), None) is not None

    def open(self) -> list[Borrowing]:
        """Those of this moment."""
        return list(self._open.values())

    def take_lost(self) -> list[Borrowing]:
        """Those whose connection was collected as garbage since the last call."""
        found = []
        while self._lost:
            found.append(self._lost.pop())
        return found

    def _vanished(self, reference: object) -> None:
        # Runs in whatever thread collects garbage, with whatever lock held: only note it.
        for borrowing in self.open():
            if borrowing.connection is reference and self.end(borrowing):
                self._lost.append(borrowing)
