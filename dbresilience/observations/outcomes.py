"""Counting how retried transactions ended."""

from __future__ import annotations

from dbresilience.observations.names import TallyName
from dbresilience.observations.pending import pending

UNKNOWN = "connection"


def retry_recovered(sqlstate: str | None) -> None:
    """A transaction came through after at least one retry; ``sqlstate`` is what its last failed run ended with."""
    pending.count(TallyName.RETRY_RECOVERED, sqlstate or UNKNOWN)


def retry_given_up(sqlstate: str | None) -> None:
    """A transaction failed that could have been retried: it had no retries left."""
    pending.count(TallyName.RETRY_GIVEN_UP, sqlstate or UNKNOWN)
