"""Failures of read models that wait for a person, among the troubles that operators see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

from django.db import connection
from django.db.models import QuerySet
from django.urls import reverse

from operations.errors import ProblemError
from operations.troubles.rows import hours_of, ids_as_numbers, rows_wanted
from operations.troubles.sources import COUNTED_AT_MOST, RETRIED_AT_ONCE, Trouble, TroubleGroup, TroubleSource
from projections.access import RESOLVE
from projections.models import BuildState, Failure, FailureState, Strategy
from projections.resolving import failure_resolve

# The kinds of what waits for a person, by the partial index of what is active; what it said stays unread.
GROUPS_SQL: Final = """
SELECT f.fingerprint, f.projection, f.event_type, f.error_class, f.code, count(*), min(f.first_failed_at),
       max(f.last_failed_at), max(f.id),
       array_agg(floor(extract(epoch FROM statement_timestamp() - f.first_failed_at) / 3600)::int)
         FILTER (WHERE f.first_failed_at > statement_timestamp() - interval '24 hours')
  FROM (SELECT id, fingerprint, projection, event_type, error_class, code, first_failed_at, last_failed_at
          FROM projections_failure
         WHERE build_id IN (SELECT id FROM projections_build WHERE state = 'live')
           AND state = 'manual' AND fingerprint = COALESCE(%(fingerprint)s, fingerprint)
         ORDER BY id DESC LIMIT %(most)s) f
 GROUP BY 1, 2, 3, 4, 5 ORDER BY 6 DESC, 1 LIMIT 100
"""


class ManualFailures(TroubleSource):
    """Failures of what readers see whose ladder has ended. Those that are retried by themselves need nobody yet, and a
    build that is being filled, or kept for a way back, fails at the same events again.

    What an error said may quote rows, so it is shown on the failure's own page alone.
    """

    name = "read_models"
    title = "Events that a read model cannot apply"
    view_permission = "projections.view_failure"
    retry_permission = RESOLVE

    def counts(self) -> Mapping[str, int]:
        rows = _manual().order_by()
        return {"manual": rows[:COUNTED_AT_MOST].count()}

    def groups(self, *, fingerprint: str | None = None) -> Sequence[TroubleGroup]:
        values: dict[str, Any] = {"fingerprint": fingerprint, "most": COUNTED_AT_MOST}
        with connection.cursor() as cursor:
            cursor.execute(GROUPS_SQL, values)
            return [
                TroubleGroup(
                    fingerprint=row[0],
                    title=f"{row[1]}: {row[4]}, {row[2]}",
                    count=row[5],
                    first_seen=row[6],
                    last_seen=row[7],
                    code=row[4],
                    message=f"Events of the type {row[2]} cannot be applied ({row[3]}).",
                    sample_id=str(row[8]),
                    hours=hours_of(row[9]),
                )
                for row in cursor.fetchall()
            ]

    def troubles(
        self, *, fingerprint: str | None = None, ids: Sequence[str] | None = None, after: str = "", limit: int = 50
    ) -> Sequence[Trouble]:
        rows = rows_wanted(_manual(), fingerprint=fingerprint, ids=ids, after=after)
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

    def list_url(self, fingerprint: str) -> str:
        # A search by fingerprint.
        return f"{reverse('admin:projections_failure_changelist')}?q={quote(fingerprint)}"


def _manual() -> QuerySet[Failure]:
    return Failure.objects.filter(state=FailureState.MANUAL, build__state=BuildState.LIVE)
