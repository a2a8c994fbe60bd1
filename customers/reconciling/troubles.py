"""Proposals among everything that needs a person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from django.db import connection
from django.urls import reverse

from customers.models import Drift, SyncState
from operations.audit import audit_record
from operations.troubles.rows import hours_of, ids_as_numbers
from operations.troubles.sources import COUNTED_AT_MOST, Trouble, TroubleGroup, TroubleSource, register

# By the partial index drift_proposals, newest first; bounded, whatever waits.
GROUPS_SQL: Final = """
SELECT concat_ws('|', d.integration, d.kind, d.repair), d.integration, d.kind, d.repair, count(*), min(d.found_at),
       max(d.seen_at), max(d.id), (array_agg(d.detail ORDER BY d.id DESC))[1],
       array_agg(floor(extract(epoch FROM statement_timestamp() - d.found_at) / 3600)::int)
         FILTER (WHERE d.found_at > statement_timestamp() - interval '24 hours')
  FROM (SELECT * FROM customers_drift WHERE status = 'open' AND NOT safe ORDER BY id DESC LIMIT %(most)s) d
 GROUP BY 1, 2, 3, 4 ORDER BY 5 DESC, 1 LIMIT 100
"""
DRIFTS_SQL: Final = """
SELECT id, concat_ws('|', integration, kind, repair), kind, detail, found_at, customer_id, remote_id, integration
  FROM customers_drift WHERE status = 'open' AND NOT safe {more} ORDER BY id DESC LIMIT %(most)s
"""


class OpenProposals(TroubleSource):
    """Differences between both sides that a person accepts or declines; another look may find that they are gone.

    Those that are safe by rule are none: the next comparison mends them, a dry run only wrote them down.
    """

    name = "proposals"
    title = "Differences between both sides"
    view_permission = "customers.view_drift"
    retry_permission = "customers.look_again_syncstate"
    decided_on_page = True

    def counts(self) -> Mapping[str, int]:
        return {"open": Drift.objects.proposals().order_by()[:COUNTED_AT_MOST].count()}

    def groups(self, *, fingerprint: str | None = None) -> Sequence[TroubleGroup]:
        with connection.cursor() as cursor:
            cursor.execute(GROUPS_SQL, {"most": COUNTED_AT_MOST})
            rows = cursor.fetchall()
        return [
            TroubleGroup(
                fingerprint=row[0],
                title=f"{row[1]}: {_label(row[2])}",
                count=row[4],
                first_seen=row[5],
                last_seen=row[6],
                sample_id=str(row[7]),
                code=row[2],
                message=row[8],
                hours=hours_of(row[9]),
            )
            for row in rows
            if fingerprint is None or row[0] == fingerprint
        ]

    def troubles(
        self, *, fingerprint: str | None = None, ids: Sequence[str] | None = None, after: str = "", limit: int = 50
    ) -> Sequence[Trouble]:
        more = ""
        values: dict[str, Any] = {"most": limit, "ids": ids_as_numbers(ids or ())}
        values["after"] = next(iter(ids_as_numbers([after])), 0)
        if ids is not None:
            more += " AND id = ANY (%(ids)s::bigint[])"
        if after:
            more += " AND id < %(after)s"
        if fingerprint is not None:
            parts = [*fingerprint.split("|", 2), "", ""][:3]
            more += " AND integration = %(integration)s AND kind = %(kind)s AND repair = %(repair)s"
            values |= dict(zip(("integration", "kind", "repair"), parts, strict=True))
        with connection.cursor() as cursor:
            cursor.execute(DRIFTS_SQL.replace("{more}", more), values)
            return [
                Trouble(
                    id=str(row[0]),
                    group=row[1],
                    state="open",
                    about=f"customer {row[5]}" if row[5] else f"{row[7]} {row[6]}",
                    code=row[2],
                    message=row[3],
                    since=row[4],
                    url=reverse("admin:customers_drift_change", args=[row[0]]),
                )
                for row in cursor.fetchall()
            ]

    def retry(self, *, ids: Sequence[str], actor: str, reason: str) -> Sequence[str]:
        rows = Drift.objects.open().filter(pk__in=ids_as_numbers(ids), state__isnull=False)
        found = dict(rows.values_list("pk", "state_id"))
        SyncState.objects.filter(pk__in=set(found.values())).look_again()
        for pk in found:
            detail = {"reason": reason} if reason else {}
            audit_record(actor=actor, action="drift.looked_at", target=f"drift:{pk}", detail=detail)
        return [str(pk) for pk in found]


def proposals_register() -> None:
    """Let the operators see them."""
    register(OpenProposals())


def _label(kind: str) -> Any:
    return dict(Drift.Kind.choices).get(kind, kind)
