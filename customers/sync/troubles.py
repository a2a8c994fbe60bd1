"""What needs a person in the synchronisation: states that failed or lost their other side, and open conflicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

from django.db import connection, transaction
from django.urls import reverse

from customers.models import Conflict, SyncState
from customers.sync.advice import conflict_advice
from operations.audit import audit_record
from operations.troubles.rows import hours_of, ids_as_numbers
from operations.troubles.sources import COUNTED_AT_MOST, Trouble, TroubleGroup, TroubleSource, register
from outbox.wakeup import wake

_ORPHANED: Final = (
    "A record there that belongs to no customer here, or an id that is not known there. Its conflict says what settles "
    "it; without one, compare both sides."
)

# The newest rows of each status in the order of the index syncstate_by_status, so that the cost follows what is shown,
# whatever has failed.
_NEWEST_STATES: Final = """
(SELECT * FROM customers_syncstate WHERE status = 'failed' {more} ORDER BY id DESC LIMIT %(most)s)
UNION ALL
(SELECT * FROM customers_syncstate WHERE status = 'orphaned' {more} ORDER BY id DESC LIMIT %(most)s)
"""
_GROUP_OF_STATE: Final = "concat_ws('|', s.integration, s.status, s.last_error_class, s.last_error_code)"
STATES_SQL: Final = f"""
SELECT s.id, {_GROUP_OF_STATE}, s.status, s.integration, s.customer_id, s.remote_id, s.last_error_code,
       s.last_error_message, s.updated_at
  FROM ({_NEWEST_STATES}) s
 ORDER BY s.id DESC LIMIT %(most)s
"""  # noqa: S608 - constants only
STATE_GROUPS_SQL: Final = f"""
SELECT {_GROUP_OF_STATE} AS fingerprint, s.integration, s.status, s.last_error_class, s.last_error_code, count(*),
       min(s.updated_at), max(s.updated_at), max(s.id), (array_agg(s.last_error_message ORDER BY s.id DESC))[1],
       array_agg(floor(extract(epoch FROM statement_timestamp() - s.updated_at) / 3600)::int)
         FILTER (WHERE s.updated_at > statement_timestamp() - interval '24 hours')
  FROM ({_NEWEST_STATES}) s
 GROUP BY 1, 2, 3, 4, 5 ORDER BY 6 DESC, 1 LIMIT 100
"""  # noqa: S608 - constants only

# By the partial index conflict_open.
CONFLICTS_SQL: Final = """
SELECT c.id, concat_ws('|', s.integration, c.kind), c.kind, c.field, c.detail, c.opened_at, s.customer_id, s.remote_id,
       s.integration
  FROM customers_conflict c JOIN customers_syncstate s ON s.id = c.state_id
 WHERE c.status = 'open' {more}
 ORDER BY c.id DESC LIMIT %(most)s
"""
CONFLICT_GROUPS_SQL: Final = """
SELECT concat_ws('|', s.integration, c.kind) AS fingerprint, s.integration, c.kind, count(*), min(c.opened_at),
       max(c.opened_at), max(c.id), (array_agg(c.detail ORDER BY c.id DESC))[1],
       array_agg(floor(extract(epoch FROM statement_timestamp() - c.opened_at) / 3600)::int)
         FILTER (WHERE c.opened_at > statement_timestamp() - interval '24 hours')
  FROM (SELECT * FROM customers_conflict WHERE status = 'open' ORDER BY id DESC LIMIT %(most)s) c
  JOIN customers_syncstate s ON s.id = c.state_id
 GROUP BY 1, 2, 3 ORDER BY 4 DESC, 1 LIMIT 100
"""


class FailedSyncs(TroubleSource):
    """Sync states that failed for good, or whose customer or remote record is gone."""

    name = "syncs"
    title = "Failed or orphaned syncs"
    view_permission = "customers.view_syncstate"
    retry_permission = "customers.look_again_syncstate"

    def counts(self) -> Mapping[str, int]:
        rows = SyncState.objects.order_by()
        return {
            status: rows.filter(status=status)[:COUNTED_AT_MOST].count()
            for status in (SyncState.Status.FAILED.value, SyncState.Status.ORPHANED.value)
        }

    def groups(self, *, fingerprint: str | None = None) -> Sequence[TroubleGroup]:
        more, values = _state_conditions(fingerprint, None, "")
        with connection.cursor() as cursor:
            cursor.execute(STATE_GROUPS_SQL.replace("{more}", more), {**values, "most": COUNTED_AT_MOST})
            return [
                TroubleGroup(
                    fingerprint=row[0],
                    title=" ".join(part for part in (row[1], row[2], row[4] or row[3]) if part),
                    count=min(row[5], COUNTED_AT_MOST),
                    first_seen=row[6],
                    last_seen=row[7],
                    sample_id=str(row[8]),
                    code=row[4],
                    message=_state_message(row[2], row[9]),
                    hours=hours_of(row[10]),
                )
                for row in cursor.fetchall()
            ]

    def troubles(
        self, *, fingerprint: str | None = None, ids: Sequence[str] | None = None, after: str = "", limit: int = 50
    ) -> Sequence[Trouble]:
        more, values = _state_conditions(fingerprint, ids, after)
        with connection.cursor() as cursor:
            cursor.execute(STATES_SQL.replace("{more}", more), {**values, "most": limit})
            return [
                Trouble(
                    id=str(row[0]),
                    group=row[1],
                    state=row[2],
                    about=_about(row[3], row[4], row[5]),
                    code=row[6],
                    message=_state_message(row[2], row[7]),
                    since=row[8],
                    url=reverse("admin:customers_syncstate_change", args=[row[0]]),
                )
                for row in cursor.fetchall()
            ]

    def retry(self, *, ids: Sequence[str], actor: str, reason: str) -> Sequence[str]:
        found = [trouble.id for trouble in self.troubles(ids=ids, limit=len(ids))]
        _look_again([int(one) for one in found], actor, reason)
        return found


class OpenConflicts(TroubleSource):
    """Questions that wait for a person; another look may find that they have answered themselves."""

    name = "conflicts"
    title = "Conflicts"
    view_permission = "customers.view_conflict"
    retry_permission = "customers.look_again_syncstate"
    decided_on_page = True

    def counts(self) -> Mapping[str, int]:
        return {"open": Conflict.objects.open().order_by()[:COUNTED_AT_MOST].count()}

    def groups(self, *, fingerprint: str | None = None) -> Sequence[TroubleGroup]:
        with connection.cursor() as cursor:
            cursor.execute(CONFLICT_GROUPS_SQL, {"most": COUNTED_AT_MOST})
            rows = cursor.fetchall()
        return [
            TroubleGroup(
                fingerprint=row[0],
                title=f"{row[1]}: {_conflict_label(row[2])}",
                count=row[3],
                first_seen=row[4],
                last_seen=row[5],
                sample_id=str(row[6]),
                code=row[2],
                message=conflict_advice(row[2]) or row[7],
                hours=hours_of(row[8]),
            )
            for row in rows
            if fingerprint is None or row[0] == fingerprint
        ]

    def troubles(
        self, *, fingerprint: str | None = None, ids: Sequence[str] | None = None, after: str = "", limit: int = 50
    ) -> Sequence[Trouble]:
        more, values = "", {"most": limit, **_keys(ids, after)}
        if ids is not None:
            more += " AND c.id = ANY (%(ids)s::bigint[])"
        if after:
            more += " AND c.id < %(after)s"
        if fingerprint is not None:
            integration, _, kind = fingerprint.partition("|")
            more += " AND s.integration = %(integration)s AND c.kind = %(kind)s"
            values |= {"integration": integration, "kind": kind}
        with connection.cursor() as cursor:
            cursor.execute(CONFLICTS_SQL.replace("{more}", more), values)
            return [
                Trouble(
                    id=str(row[0]),
                    group=row[1],
                    state="open",
                    about=" ".join(part for part in (_about(row[8], row[6], row[7]), row[3]) if part),
                    code=row[2],
                    message=row[4] or _conflict_label(row[2]),
                    since=row[5],
                    url=reverse("admin:customers_conflict_change", args=[row[0]]),
                )
                for row in cursor.fetchall()
            ]

    def retry(self, *, ids: Sequence[str], actor: str, reason: str) -> Sequence[str]:
        numbers = _keys(ids, "")["ids"]
        found = dict(Conflict.objects.open().filter(pk__in=numbers).values_list("pk", "state_id"))
        _look_again(sorted(set(found.values())), actor, reason)
        return [str(key) for key in found]


def troubles_register() -> None:
    """Let the operators see both."""
    register(FailedSyncs())
    register(OpenConflicts())


def _look_again(states: Sequence[int], actor: str, reason: str) -> None:
    if not states:
        return
    SyncState.objects.filter(pk__in=states).look_again()
    for pk in states:
        detail = {"reason": reason} if reason else {}
        audit_record(actor=actor, action="syncstate.poked", target=f"syncstate:{pk}", detail=detail)
    transaction.on_commit(partial(wake, "sync"))


def _state_conditions(fingerprint: str | None, ids: Sequence[str] | None, after: str) -> tuple[str, dict[str, Any]]:
    more, values = "", _keys(ids, after)
    if ids is not None:
        more += " AND id = ANY (%(ids)s::bigint[])"
    if after:
        more += " AND id < %(after)s"
    if fingerprint is not None:
        parts = [*fingerprint.split("|", 3), "", "", ""][:4]
        more += (
            " AND integration = %(integration)s AND status = %(status)s"
            " AND last_error_class = %(class)s AND last_error_code = %(code)s"
        )
        values |= dict(zip(("integration", "status", "class", "code"), parts, strict=True))
    return more, values


def _keys(ids: Sequence[str] | None, after: str) -> dict[str, Any]:
    return {"ids": ids_as_numbers(ids or ()), "after": next(iter(ids_as_numbers([after])), 0)}


def _about(integration: str, customer_id: Any, remote_id: str | None) -> str:
    return f"customer {customer_id}" if customer_id else f"{integration} {remote_id}"


def _state_message(status: str, message: str) -> str:
    return message or (_ORPHANED if status == SyncState.Status.ORPHANED else "")


def _conflict_label(kind: str) -> str:
    return dict(Conflict.Kind.choices).get(kind, kind)
