"""Stuck protected changes among all that needs a person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final
from uuid import UUID

from django.db import connection
from django.urls import reverse

from customers.models import Saga
from customers.sagas.retrying import sagas_retry
from operations.identifiers import uuids_of
from operations.troubles.rows import hours_of
from operations.troubles.sources import COUNTED_AT_MOST, Trouble, TroubleGroup, TroubleSource, register

# By the partial index saga_stuck, the newest ones alone.
GROUPS_SQL: Final = """
SELECT concat_ws('|', s.action, s.last_error_code) AS fingerprint, s.action, s.last_error_code, count(*),
       min(s.updated_at), max(s.updated_at), (array_agg(s.id ORDER BY s.id DESC))[1],
       (array_agg(s.last_error_message ORDER BY s.id DESC))[1],
       array_agg(floor(extract(epoch FROM statement_timestamp() - s.updated_at) / 3600)::int)
         FILTER (WHERE s.updated_at > statement_timestamp() - interval '24 hours')
  FROM (SELECT * FROM customers_saga WHERE status = 'stuck' ORDER BY id DESC LIMIT %(most)s) s
 GROUP BY 1, 2, 3 ORDER BY 4 DESC, 1 LIMIT 100
"""


class StuckSagas(TroubleSource):
    """Protected changes that could neither be done nor undone."""

    name = "sagas"
    title = "Stuck protected changes"
    view_permission = "customers.view_saga"
    retry_permission = "customers.retry_saga"

    def counts(self) -> Mapping[str, int]:
        return {Saga.Status.STUCK.value: Saga.objects.stuck().order_by()[:COUNTED_AT_MOST].count()}

    def groups(self, *, fingerprint: str | None = None) -> Sequence[TroubleGroup]:
        with connection.cursor() as cursor:
            cursor.execute(GROUPS_SQL, {"most": COUNTED_AT_MOST})
            rows = cursor.fetchall()
        return [
            TroubleGroup(
                fingerprint=row[0],
                title=f"{row[1]} {row[2]}".strip(),
                count=row[3],
                first_seen=row[4],
                last_seen=row[5],
                sample_id=str(row[6]),
                code=row[2],
                message=row[7],
                hours=hours_of(row[8]),
            )
            for row in rows
            if fingerprint is None or row[0] == fingerprint
        ]

    def troubles(
        self, *, fingerprint: str | None = None, ids: Sequence[str] | None = None, after: str = "", limit: int = 50
    ) -> Sequence[Trouble]:
        rows = Saga.objects.stuck().order_by("-id")
        if fingerprint is not None:
            action, _, code = fingerprint.partition("|")
            rows = rows.filter(action=action, last_error_code=code)
        if ids is not None:
            rows = rows.filter(pk__in=uuids_of(ids))
        if after:
            rows = rows.filter(pk__lt=next(iter(uuids_of([after])), UUID(int=0)))
        return [_trouble(saga) for saga in rows.defer("values")[:limit]]

    def retry(self, *, ids: Sequence[str], actor: str, reason: str) -> Sequence[str]:
        return [str(saga_id) for saga_id in sagas_retry(ids=uuids_of(ids), actor=actor, reason=reason)]


def troubles_register() -> None:
    """Let the operators see them."""
    register(StuckSagas())


def _trouble(saga: Saga) -> Trouble:
    return Trouble(
        id=str(saga.pk),
        group=f"{saga.action}|{saga.last_error_code}",
        state=str(saga.status),
        about=f"{saga.action} of customer {saga.customer_id}",
        code=saga.last_error_code,
        message=saga.last_error_message,
        since=saga.updated_at,
        url=reverse("admin:customers_saga_change", args=[saga.pk]),
    )
