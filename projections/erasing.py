"""Erasing what failures of read models may quote of one aggregate. The rows themselves follow from the log."""

from __future__ import annotations

from typing import Final

from django.db.models import Case, TextField, Value, When

from projections.models import Failure, FailureAttempt

ERASED: Final = "Erased."


def failures_erase(*, aggregate_type: str, aggregate_id: str) -> int:
    """Empty the texts of an aggregate's failures, in the transaction under way; how many failures there are.

    What failed, when, how often and with which code stays. There are few rows, and this is rare: it reads them all.
    """
    found = Failure.objects.filter(aggregate_type=aggregate_type, aggregate_id=aggregate_id)
    FailureAttempt.objects.filter(failure__in=found).exclude(message=ERASED).update(message=ERASED)
    note = Case(When(resolution="", then=Value("")), default=Value(ERASED), output_field=TextField())
    return found.update(message=ERASED, traceback="", resolution=note)
