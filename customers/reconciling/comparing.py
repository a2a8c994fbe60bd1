"""A page of remote records against the catalogue: one query for all of them, in memory that does not grow.

This only sorts: what is the same is done with; what nobody knows here can be imported; what looks odd in any other way
is looked at again by itself (``examining``), because a page is old by the time it is compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

import orjson
from django.db import connection
from django.utils import timezone

from customers.integrations import Fields, Integration, RemoteRecord
from customers.models import Customer, Saga, SyncState
from customers.reconciling.conf import reconcile_settings
from customers.sync.fields import fields_make, root_of
from operations.identifiers import uuid_of

# The states of a page with their customers, by the index of remote ids and one at a time. Of a table that was never
# analysed, as during a first import, or long ago, the planner takes an integration for rare and would read all of its
# states for each page, or for each record. So it is not let near an index by the integration: IS NOT DISTINCT FROM
# serves none. The columns are read as they are: a whole account passes here, and model instances would cost three times
# as much.
PAGE_SQL: Final = """
SELECT s.remote_id, s.customer_id, s.status, s.base::text,
       s.dirty_at IS NOT NULL OR s.lease_until > statement_timestamp() OR s.saga_id IS NOT NULL,
       c.deleted_at IS NOT NULL,
       c.name, c.email, c.phone, c.address::text, c.metadata::text
  FROM jsonb_array_elements_text(%(ids)s::jsonb) AS given (remote_id)
 CROSS JOIN LATERAL (
       SELECT * FROM customers_syncstate
        WHERE remote_id = given.remote_id
          AND (integration, account, livemode) IS NOT DISTINCT FROM (%(integration)s, %(account)s, %(livemode)s)
        LIMIT 1) s
  LEFT JOIN customers_customer c ON c.id = s.customer_id
"""
# Messages about records of a page that nobody has worked on yet, by the indexes of remote ids and of pending ones.
WAITING_SQL: Final = """
SELECT remote_id FROM customers_webhook
 WHERE processed_at IS NULL AND integration = %(integration)s AND remote_id = ANY (%(ids)s)
"""


@dataclass(slots=True)
class Compared:
    """A page, sorted.

    Attributes:
        unknown: records that nobody knows here and that name none of our customers.
        odd: ids of records that must be looked at one by one.
    """

    unknown: list[RemoteRecord] = field(default_factory=list)
    odd: list[str] = field(default_factory=list)


def page_compare(integration: Integration, records: Sequence[RemoteRecord]) -> Compared:
    """Sort the records of a page."""
    rows = _rows(integration, [record.remote_id for record in records])
    found = Compared()
    new: list[RemoteRecord] = []
    for record in records:
        row = rows.get(record.remote_id)
        if row is None:
            new.append(record)
        elif not _is_settled(integration, record, row):
            found.odd.append(record.remote_id)
    if new:
        _sort_new(integration, new, found)
    return found


def _is_settled(integration: Integration, record: RemoteRecord, row: Sequence[Any]) -> bool:
    """Whether there is nothing to look at: all is the same, or somebody is at work on it."""
    _, customer_id, status, base, busy, deleted, name, email, phone, address, metadata = row
    if busy:
        return True
    if customer_id is None:
        return bool(status == SyncState.Status.PENDING)
    if deleted:
        # Unlinked on purpose: the record there stays, and everything is as it should be.
        return bool(status == SyncState.Status.DELETED and integration.delete_policy == "unlink")
    if record.reference and record.reference != str(customer_id):
        return False
    theirs = _held(integration, record.fields)
    if theirs != (orjson.loads(base) if base else {}):
        return False
    ours = fields_make(
        name=name, email=email, phone=phone, address=orjson.loads(address), metadata=orjson.loads(metadata)
    )
    return _held(integration, ours) == theirs


def _sort_new(integration: Integration, new: Sequence[RemoteRecord], found: Compared) -> None:
    waiting = _waiting(integration, [record.remote_id for record in new])
    named = {record.remote_id: uuid for record in new if (uuid := reference_of(record)) is not None}
    known = set(Customer.objects.filter(pk__in=named.values()).values_list("pk", flat=True)) if named else set()
    # A protected create makes its customer last: what it has there is nobody's to import, also if it was undone.
    creates = dict(
        Saga.objects.filter(customer_id__in=named.values(), action=Saga.Action.CREATE)
        .exclude(status=Saga.Status.DONE)
        .values_list("customer_id", "status")
    )
    youngest = timezone.now().timestamp() - reconcile_settings().grace
    for record in new:
        if record.remote_id in waiting or (record.created_at and record.created_at.timestamp() > youngest):
            # Its webhook is here, or on its way.
            continue
        status = creates.get(named[record.remote_id]) if record.remote_id in named else None
        if status is not None and status != Saga.Status.UNDONE:
            continue
        if status is not None or named.get(record.remote_id) in known:
            found.odd.append(record.remote_id)
        else:
            found.unknown.append(record)


def reference_of(record: RemoteRecord) -> UUID | None:
    """The customer that a record names, whether or not there is one."""
    return uuid_of(record.reference)


def _rows(integration: Integration, ids: Sequence[str]) -> dict[str, Sequence[Any]]:
    with connection.cursor() as cursor:
        cursor.execute(
            PAGE_SQL,
            {
                "integration": integration.name,
                "account": integration.account,
                "livemode": integration.livemode,
                # As JSON: to quote a hundred for an array takes as long as to find them.
                "ids": orjson.dumps(ids).decode(),
            },
        )
        return {row[0]: row for row in cursor.fetchall()}


def _waiting(integration: Integration, ids: Sequence[str]) -> set[str]:
    with connection.cursor() as cursor:
        cursor.execute(WAITING_SQL, {"integration": integration.name, "ids": list(ids)})
        return {row[0] for row in cursor.fetchall()}


def _held(integration: Integration, fields: Fields) -> Fields:
    if integration.roots >= Integration.roots:
        return fields
    return {name: value for name, value in fields.items() if root_of(name) in integration.roots}
