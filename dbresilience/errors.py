"""What can go wrong between us and PostgreSQL, as types."""

from __future__ import annotations

import psycopg
from django.db import OperationalError, ProgrammingError


class ConnectionLost(OperationalError):
    """The connection was lost inside the transaction, which therefore did not commit."""


class CommitUnknown(OperationalError):
    """The answer to COMMIT was lost and the server could not be asked: the transaction may have committed.

    Attributes:
        transaction_id: the transaction's id on the server, for ``pg_xact_status``; None when it is not known.
    """

    def __init__(self, transaction_id: int | None) -> None:
        super().__init__(f"{(CommitUnknown.__doc__ or '').partition(chr(10))[0]} Transaction {transaction_id}.")
        self.transaction_id = transaction_id


class DeadlineExceeded(OperationalError):
    """The transaction's deadline has passed; it did not commit."""


class TransactionAborted(ProgrammingError):
    """A statement failed inside the transaction and its error was caught, so PostgreSQL undid the whole."""


class TransactionEnded(ProgrammingError):
    """The function ended its transaction itself: what it did is no longer one whole, and is never repeated."""


class NestedTransaction(ProgrammingError):
    """Inside another transaction there is no isolation level, no lock to begin with and no reading only to choose."""


class LockHeld(Exception):
    """The advisory lock that the transaction was to begin with is held by another one. Nothing was done."""


class LocksNotGranted(OperationalError):
    """A migration did not get its locks, however often it asked. Nothing of it was applied."""


class AnswerTimeout(psycopg.OperationalError):
    """The server did not answer in time; the connection was closed."""
