"""What can happen to somebody who wants a lock."""

from __future__ import annotations

import datetime as dt

from operations.errors import ProblemError


class LockTaken(ProblemError):
    """Somebody else is at work on this now. Try again in a moment.

    Args:
        kind: of the lock.
        key: of the lock.
        holder: who has it; empty if it was given back meanwhile.
        until: when it runs out at the latest; None if its holder decides.
    """

    status = 409
    code = "locked"
    title = "Conflict"

    def __init__(self, kind: str, key: str, holder: str = "", until: dt.datetime | None = None) -> None:
        super().__init__(headers={"Retry-After": "1"})
        self.kind, self.key, self.holder, self.until = kind, key, holder, until


class LockLost(Exception):
    """The lock ran out and was taken by another; nothing may be written on behalf of it."""
