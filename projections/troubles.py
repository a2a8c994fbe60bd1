"""Failures of read models that wait for a person, among the troubles that operators see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from django.db.models import Count, Max, Min
from django.urls import reverse

from operations.errors import ProblemError
from operations.troubles.rows import ids_as_numbers, rows_wanted
from operations.troubles.sources import COUNTED_AT_MOST, RETRIED_AT_ONCE, Trouble, TroubleGroup, TroubleSource
from projections.access import RESOLVE
from projections.models import Failure, FailureState, Strategy
from projections.resolving import failure_resolve

GROUPS_AT_MOST: Final = 100


class ManualFailures(TroubleSource):
    """Failures whose ladder has ended. Those that are retried by themselves need nobody yet.

    What an error said may quote rows, so it is shown on the failure's own page alone.
    """

    name = "read_models"
    title = "Events that a read model cannot apply"
    view_permission = "projections.view_failure"
    retry_permission = RESOLVE

    def counts(self) -> Mapping[str, int]:
        rows = Failure.objects.filter(state=FailureState.MANUAL).order_by()
        return {"manual": rows[:COUNTED_AT_MOST].count()}

    def groups(self, *, fingerprint: str | None = None) -> Sequence[TroubleGroup]:
        newest = Failure.objects.filter(state=FailureState.MANUAL)
        if fingerprint is not None:
            newest = newest.filter(fingerprint=fingerprint)
        rows = Failure.objects.filter(pk__in=newest.order_by("-pk").values("pk")[:COUNTED_AT_MOST])
        grouped = rows.values("fingerprint", "projection", "event_type", "error_class", "code").annotate(
            count=Count("pk"), first=Min("first_failed_at"), last=Max("last_failed_at"), sample=Max("pk")
        )
        return [
            TroubleGroup(
                fingerprint=row["fingerprint"],
                title=f"{row['projection']}: {row['code']}, {row['event_type']}",
                count=row["count"],
                first_seen=row["first"],
                last_seen=row["last"],
                code=row["code"],
                message=f"Events of the type {row['event_type']} cannot be applied ({row['error_class']}).",
                sample_id=str(row["sample"]),
            )
            for row in grouped.order_by("-count", "fingerprint")[:GROUPS_AT_MOST]
        ]

    def troubles(
        self, *, fingerprint: str | None = None, ids: Sequence[str] | None = None, after: str = "", limit: int = 50
    ) -> Sequence[Trouble]:
        rows = rows_wanted(
            Failure.objects.filter(state=FailureState.MANUAL), fingerprint=fingerprint, ids=ids, after=after
        )
        return [
            Trouble(
                id=str(one.pk),
                group=one.fingerprint,
                state=one.state,
                about=f"{one.projection}: {one.event_type} of {one.aggregate_type} {one.aggregate_id}",
                code=one.code,
                message=f"It cannot be applied ({one.error_class}).",
                since=one.first_failed_at,
                url=reverse("admin:projections_failure_change", args=[one.pk]),
            )
            for one in rows.defer("message", "traceback")[:limit]
        ]

    def retry(self, *, ids: Sequence[str], actor: str, reason: str) -> Sequence[str]:
        done = []
        for number in sorted(ids_as_numbers(ids))[:RETRIED_AT_ONCE]:
            try:
                failure_resolve(failure_id=number, strategy=Strategy.RETRY, actor=actor, note=reason)
            except ProblemError:
                # Somebody else decided meanwhile, or it is none.
                continue
            done.append(str(number))
        return done
