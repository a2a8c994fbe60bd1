"""Counting how transactions ended that did not simply end."""

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


def commit_resolved(outcome: str) -> None:
    """The answer to a COMMIT was lost; ``outcome`` is what became of it: committed, aborted or unknown."""
    pending.count(TallyName.COMMIT_RESOLVED, outcome)
