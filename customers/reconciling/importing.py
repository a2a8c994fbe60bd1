"""Records that nobody knows here become customers, a page in one transaction, with their links and events.

It begins by inserting the unlinked state of each record: the unique index of remote ids lets one writer have it, and a
webhook that comes meanwhile waits there and then finds it. What was read is the base, so whatever changes there later
is a change of theirs, and nothing newer is ever overwritten.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

import orjson
from django.db import connection
from django.db.models.functions import Now

from customers.importing.batches import customers_import
from customers.integrations import Fields, Integration, RemoteRecord
from customers.models import Conflict, Customer, Drift, SyncState
from customers.sync.fields import customer_changes, fields_hash, root_of
from customers.sync.settle import Question, question_add

_LONGEST: Final = {"name": 256, "email": 512, "phone": 20}

# The records that are ours to import: those for which no row was there. In the order of ids, as all who insert several.
CLAIM_SQL: Final = """
INSERT INTO customers_syncstate (integration, account, livemode, remote_id, priority, status)
SELECT %(integration)s, %(account)s, %(livemode)s, remote_id, 2, 'orphaned'
  FROM unnest(%(ids)s::text[]) AS given (remote_id) ORDER BY remote_id
ON CONFLICT (integration, account, livemode, remote_id) DO NOTHING
RETURNING remote_id, id
"""
LINK_SQL: Final = """
UPDATE customers_syncstate AS s
   SET customer_id = g.customer_id, base = g.base, base_hash = g.base_hash, status = 'in_sync',
       last_success_at = clock_timestamp(), updated_at = clock_timestamp()
  FROM unnest(%(states)s::bigint[], %(customers)s::uuid[], %(bases)s::jsonb[], %(hashes)s::text[])
       AS g (state_id, customer_id, base, base_hash)
 WHERE s.id = g.state_id
"""
# What this way of importing cannot take, each for itself: the usual look finds out, and asks a person if need be.
SINGLY_SQL: Final = """
UPDATE customers_syncstate SET dirty_at = clock_timestamp(), poke_count = 1, status = 'pending'
 WHERE id = ANY (%(states)s)
"""


@dataclass(slots=True)
class Imported:
    """What became of records.

    Attributes:
        customers: new customers by remote id.
        unlinked: records whose e-mail another customer has; they stay unlinked, with a question.
        singly: records that are looked at one by one.
    """

    customers: dict[str, UUID] = field(default_factory=dict)
    unlinked: list[str] = field(default_factory=list)
    singly: list[str] = field(default_factory=list)


def records_import(integration: Integration, records: Sequence[RemoteRecord]) -> Imported:
    """Take the records into the catalogue, in the transaction under way; those that are known by now are left out."""
    states = _claimed(integration, [record.remote_id for record in records])
    done = Imported()
    taken: list[tuple[RemoteRecord, Fields, dict[str, Any]]] = []
    for record in records:
        if record.remote_id not in states:
            continue
        theirs = {name: value for name, value in record.fields.items() if root_of(name) in integration.roots}
        if any(len(str(theirs.get(name, ""))) > longest for name, longest in _LONGEST.items()):
            done.singly.append(record.remote_id)
        else:
            taken.append((record, theirs, customer_changes(Customer(), theirs)))
    ids = customers_import(rows=[values for _, _, values in taken], origin=integration.name, priority="bulk")
    links: list[tuple[int, UUID, Fields]] = []
    for (record, theirs, _), customer_id in zip(taken, ids, strict=True):
        if customer_id is None:
            done.unlinked.append(record.remote_id)
            _ask(states[record.remote_id], record, str(theirs.get("email", "")))
        else:
            done.customers[record.remote_id] = customer_id
            links.append((states[record.remote_id], customer_id, theirs))
    _link(links)
    if links:
        subjects = [f"remote:{remote_id}" for remote_id in done.customers]
        waiting = Drift.objects.open().filter(
            integration=integration.name, account=integration.account, livemode=integration.livemode
        )
        waiting.filter(kind=Drift.Kind.MISSING_HERE, subject__in=subjects).update(
            status=Drift.Status.GONE, ended_at=Now(), outcome="It was imported."
        )
    if done.singly:
        with connection.cursor() as cursor:
            cursor.execute(SINGLY_SQL, {"states": [states[remote_id] for remote_id in done.singly]})
    return done


def _claimed(integration: Integration, ids: Sequence[str]) -> dict[str, int]:
    if not ids:
        return {}
    with connection.cursor() as cursor:
        cursor.execute(
            CLAIM_SQL,
            {
                "integration": integration.name,
                "account": integration.account,
                "livemode": integration.livemode,
                "ids": list(ids),
            },
        )
        return dict(cursor.fetchall())


def _link(links: Sequence[tuple[int, UUID, Fields]]) -> None:
    if not links:
        return
    with connection.cursor() as cursor:
        cursor.execute(
            LINK_SQL,
            {
                "states": [state for state, _, _ in links],
                "customers": [customer for _, customer, _ in links],
                "bases": [orjson.dumps(base).decode() for _, _, base in links],
                "hashes": [fields_hash(base) for _, _, base in links],
            },
        )


def _ask(state_id: int, record: RemoteRecord, email: str) -> None:
    taken = Customer.objects.active().with_email(email).first()
    question_add(
        SyncState(pk=state_id),
        Question(
            Conflict.Kind.EMAIL_TAKEN,
            "email",
            ours={"customer_id": str(taken.pk)} if taken else None,
            theirs={"remote_id": record.remote_id, "email": email},
            detail="Not imported: it may be that customer, or another one with the same e-mail.",
        ),
    )
