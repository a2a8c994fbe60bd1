"""Timing of every statement, and the trail of what a transaction ran."""

from __future__ import annotations

from collections import deque
from typing import Final

from django.db.backends.base.base import BaseDatabaseWrapper

from dbresilience.monitor.conf import monitor_settings
from dbresilience.observations.names import TallyName
from dbresilience.observations.pending import pending
from dbresilience.observations.writer import start
from dbresilience.statements import normalised

_is_begun = False

TRAIL: Final = 50
"""Statements of one transaction that are remembered."""


def observation_begin() -> None:
    """Have the connections of our backend observed; the app does so when it is installed, and its tables with it."""
    global _is_begun
    _is_begun = True


def observed_from() -> float | None:
    """For a connection just made: seconds from which on its statements are slow; None when nothing is observed."""
    if not _is_begun:
        return None
    start()
    return monitor_settings().slow_query_ms / 1000


def new_trail() -> deque[object]:
    """What the transaction under way on one connection ran, as sent, latest last."""
    return deque(maxlen=TRAIL)


def slow_statement_count(statement: object, seconds: float) -> None:
    """Count a slow statement by its text without values."""
    pending.count(TallyName.SLOW_STATEMENT, normalised(str(statement)), seconds)


def trail_of(connection: BaseDatabaseWrapper) -> tuple[str, ...]:
    """What the transaction under way on a connection ran, latest last; as sent, so never to be shown as it is."""
    return tuple(str(statement) for statement in getattr(connection.connection, "trail", ()))
