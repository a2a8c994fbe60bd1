"""All data of one customer as one document, for the person whom it is about."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import orjson

from customers.errors import CustomerNotFound
from customers.events import AGGREGATE
from customers.instants import instant_text
from customers.models import Conflict, Customer, SyncRequest, SyncState, Webhook
from dbresilience.transactions import run_in_transaction
from operations.audit import audit_record
from operations.models import AuditEntry
from outbox.models import StoredEvent


def customer_export(*, customer_id: UUID, actor: str) -> dict[str, Any]:
    """Everything that is kept about a customer; noted in the audit trail, in the same transaction.

    Args:
        customer_id: which; deleted ones too.
        actor: as ``actor_of`` names them.

    Raises:
        CustomerNotFound: there never was one.
    """

    def work() -> dict[str, Any]:
        customer = Customer.objects.filter(pk=customer_id).first()
        if customer is None:
            raise CustomerNotFound
        document = _document(customer)
        audit_record(actor=actor, action="customer.exported", target=f"{AGGREGATE}:{customer_id}")
        return document

    return run_in_transaction(work)


def document_text(document: Any) -> bytes:
    """A document as indented JSON, in UTF-8."""
    return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def _document(customer: Customer) -> dict[str, Any]:
    states = list(SyncState.objects.filter(customer=customer).order_by("integration"))
    events = StoredEvent.objects.filter(aggregate_type=AGGREGATE, aggregate_id=str(customer.pk)).order_by("sequence")
    trail = AuditEntry.objects.filter(target=f"{AGGREGATE}:{customer.pk}").order_by("pk")
    return {
        "customer": {
            "id": str(customer.pk),
            "name": customer.name,
            "email": customer.email,
            "phone": customer.phone,
            "address": customer.address or None,
            "metadata": customer.metadata,
            "version": customer.version,
            "created_at": instant_text(customer.created_at),
            "updated_at": instant_text(customer.updated_at),
            "deleted_at": customer.deleted_at and instant_text(customer.deleted_at),
            "erased_at": customer.erased_at and instant_text(customer.erased_at),
        },
        "integrations": [_state(state) for state in states],
        "events": [
            {
                "id": str(event.uid),
                "sequence": event.sequence,
                "type": event.type,
                "origin": event.origin,
                "at": instant_text(event.created_at),
                "payload": orjson.loads(event.payload),
            }
            for event in events.iterator()
        ],
        "audit": [
            {"at": instant_text(entry.at), "actor": entry.actor, "action": entry.action, "detail": entry.detail}
            for entry in trail.iterator()
        ],
    }


def _state(state: SyncState) -> dict[str, Any]:
    webhooks = Webhook.objects.filter(integration=state.integration, remote_id=state.remote_id or "").order_by("pk")
    return {
        "integration": state.integration,
        "account": state.account or None,
        "livemode": state.livemode,
        "remote_id": state.remote_id,
        "status": state.status,
        "agreed": state.base,
        "conflicts": [
            {
                "kind": row.kind,
                "field": row.field or None,
                "before": row.base,
                "ours": row.ours,
                "theirs": row.theirs,
                "status": row.status,
                "opened_at": instant_text(row.opened_at),
            }
            for row in Conflict.objects.filter(state=state).order_by("pk")
        ],
        "requests": [
            {
                "method": row.method,
                "body": row.body,
                "sent_at": instant_text(row.first_sent_at),
                "outcome": row.outcome or None,
            }
            for row in SyncRequest.objects.filter(state=state).order_by("pk")
        ],
        "webhooks": [
            {"type": row.type, "received_at": instant_text(row.received_at), "payload": row.payload}
            for row in (webhooks if state.remote_id else ())
        ],
    }
