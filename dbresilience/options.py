"""How a transaction is asked for, and what is refused before it begins."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final, Literal

from psycopg import IsolationLevel

from dbresilience.errors import DeadlineExceeded

IsolationName = Literal["read committed", "repeatable read", "serializable"]
Classes = tuple[type[Exception], ...]

LEVELS: Final[dict[str, IsolationLevel]] = {
    "read committed": IsolationLevel.READ_COMMITTED,
    "repeatable read": IsolationLevel.REPEATABLE_READ,
    "serializable": IsolationLevel.SERIALIZABLE,
}

LONGEST_DEADLINE: Final = 2_147_483.0
"""Seconds; the server keeps its time-outs as milliseconds in 32 bits."""


@dataclass(slots=True)
class Options:
    """How a transaction is begun.

    Attributes:
        using: alias of the database.
        isolation: level; None takes the connection's.
        read_only: whether it may write nothing; such a transaction takes no id.
        expires: monotonic instant by which it must be over; None for no such instant.
        lock: number of the advisory lock that it holds from its beginning; None for none.
        savepoints: whether runs inside become savepoints.
    """

    using: str
    isolation: IsolationName | None
    read_only: bool
    expires: float | None
    lock: int | None
    savepoints: bool

    @property
    def is_usual(self) -> bool:
        """Whether nothing special was asked for."""
        return self.isolation is None and self.expires is None and self.lock is None and not self.read_only

    def left(self) -> float | None:
        """Seconds until the deadline, not below 0; None without one."""
        return None if self.expires is None else max(0.0, self.expires - time.monotonic())


def expires_at(deadline: float | None) -> float | None:
    """The monotonic instant that lies so many seconds ahead.

    Raises:
        DeadlineExceeded: it lies behind.
        ValueError: it is no number of seconds that a server can keep.
    """
    if deadline is None:
        return None
    if not isinstance(deadline, int | float) or not deadline <= LONGEST_DEADLINE:
        raise ValueError(f"deadline must be a number of seconds up to {LONGEST_DEADLINE:.0f}, not {deadline!r}.")
    if deadline <= 0:
        raise DeadlineExceeded(DeadlineExceeded.__doc__)
    return time.monotonic() + deadline


def arguments_check(
    *, isolation: object, lock: object, max_retries: object, retry_on: type[Exception] | Classes
) -> None:
    """Refuse what makes no sense by its name, rather than in the middle of handling an error.

    Raises:
        ValueError: a value is none that the argument may have.
    """
    if isolation is not None and isolation not in LEVELS:
        raise ValueError(f"isolation must be one of {', '.join(LEVELS)}, not {isolation!r}.")
    if lock is not None and not (_is_whole(lock) and -(2**63) <= lock < 2**63):  # type: ignore[operator]
        raise ValueError(f"lock must be a whole number of 64 bits, not {lock!r}.")
    if max_retries is not None and not (_is_whole(max_retries) and max_retries >= 0):  # type: ignore[operator]
        raise ValueError(f"max_retries must be a whole number from 0 on, not {max_retries!r}.")
    for one in retry_on if isinstance(retry_on, tuple) else (retry_on,):
        if not (isinstance(one, type) and issubclass(one, BaseException)):
            raise ValueError(f"retry_on must be a class of exceptions or a tuple of them, not {retry_on!r}.")


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
