"""Catching up: a build whose row is locked is brought to a place of the log by whoever holds the lock."""

from __future__ import annotations

from typing import Final

from operations.errors import ProblemError
from outbox.ordered import ordered_read
from outbox.reading import places_between
from projections.batches import batch_apply
from projections.builds import HeldBuild

CLOSE: Final = 20_000
"""Events that may be caught up while checkpoints are held."""

FREEZE_SECONDS: Final = 30.0
"""Length of the lease meanwhile."""

_AT_ONCE: Final = 5_000


class NotCaughtUp(ProblemError):
    """The build that is to be seen has not caught up yet."""

    status = 409
    code = "not_caught_up"
    title = "Not caught up"


def build_catch_up(held: HeldBuild, upto: int) -> None:
    """Bring a build whose row is locked to a position, in the current transaction.

    Raises:
        NotCaughtUp: it is more than ``CLOSE`` events behind.
    """
    if upto - held.cursor > CLOSE and places_between(held.cursor, upto, CLOSE + 1) > CLOSE:
        raise NotCaughtUp(f"It is more than {CLOSE} events behind.")
    while held.cursor < upto:
        read = ordered_read(after=held.cursor, limit=_AT_ONCE, topics=held.projection.topics, upto=upto)
        if not read.places:
            return
        batch_apply(held, read, limit=_AT_ONCE, seconds=FREEZE_SECONDS)
