"""Erasing a customer: at once and for good where it stands, then again until nothing under way can bring it back.

One transaction empties the row, deletes the customer if it was not deleted, says so in the log (``customer.deleted``,
``customer.erased``) and goes through all traces. A worker that is killed before its commit left nothing; afterwards
everything is on its way: integrations delete their record by their policy through the sync as of any deleted customer,
read models and Kafka's consumers hear of it in the order of the log.

What had been read before that commit may be written after it: the base of a sync, the copy of an event that failed, a
row of a read model. Each of these ends before its reader comes past ``customer.erased``, so the traces are gone through
again once all have (``waits_for`` says what is missing), and for a month daily after that, for what comes out of Kafka
and out of Stripe late.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final
from uuid import UUID

import structlog
from django.db.models.functions import Now
from django.utils import timezone

from customers.changing import MUTABLE
from customers.erasing.traces import traces_erase, values_of
from customers.erasing.waiting import erasure_waits_for
from customers.errors import CustomerNotFound
from customers.events import AGGREGATE, DELETED, ERASED, customer_event
from customers.models import Customer, Erasure
from dbresilience.transactions import run_in_transaction
from operations.audit import audit_record
from outbox.publishing import publish_many

log = structlog.get_logger(__name__)

AGAIN: Final = timedelta(minutes=1)
AGAIN_LATER: Final = timedelta(hours=1)
WATCHED: Final = timedelta(days=30)
"""How long after its end a customer's traces are still looked for; Kafka and Stripe repeat what is no older."""
_PATIENT_AFTER: Final = 60
_AT_ONCE: Final = 50


def customer_erase(*, customer_id: UUID, actor: str, origin: str = "api") -> Erasure:
    """Erase a customer's personal data everywhere; asked again, it goes through the traces again.

    Args:
        customer_id: which; deleted ones too.
        actor: as ``actor_of`` names them; the audit trail says who, and whom only by id.
        origin: where it was asked for: api, console, shell.

    Raises:
        CustomerNotFound: there never was one.
    """

    def work() -> Erasure:
        customer = Customer.objects.select_for_update(no_key=True).filter(pk=customer_id).first()
        if customer is None:
            raise CustomerNotFound
        erasure = Erasure.objects.filter(pk=customer_id).first()
        values: set[str] = set()
        if erasure is None:
            values = values_of(vars(customer))
            event_id = _row_erase(customer, origin)
            erasure = Erasure.objects.create(customer=customer, event_id=event_id, requested_by=actor)
            audit_record(actor=actor, action="customer.erased", target=f"{AGGREGATE}:{customer_id}")
        _pass(erasure, values)
        return erasure

    erasure = run_in_transaction(work)
    log.info("customer_erased", customer=str(customer_id), waits_for=erasure.waits_for)
    return erasure


def erasures_sweep_once() -> int:
    """Go through the traces of erasures that are due; how many.

    SKIP LOCKED lets several workers share the work; each erasure is a transaction of its own.
    """
    due = Erasure.objects.filter(next_pass_at__lte=Now()).order_by("next_pass_at")
    swept = 0
    for pk in list(due.values_list("pk", flat=True)[:_AT_ONCE]):
        swept += run_in_transaction(lambda pk=pk: _sweep(pk))  # type: ignore[misc]
    return swept


def _sweep(customer_id: UUID) -> int:
    # The customer first, as everybody who writes about it does.
    if not Customer.objects.select_for_update(no_key=True, skip_locked=True).filter(pk=customer_id).exists():
        return 0
    erasure = Erasure.objects.select_for_update().get(pk=customer_id)
    if erasure.next_pass_at is None or erasure.next_pass_at > timezone.now():
        return 0
    _pass(erasure, set())
    return 1


def _row_erase(customer: Customer, origin: str) -> int:
    now = timezone.now()
    customer.name = customer.email = customer.phone = None
    customer.address, customer.metadata = {}, {}
    customer.erased_at = now
    news = [(ERASED, ["erased"])]
    if customer.deleted_at is None:
        customer.deleted_at = now
        news.insert(0, (DELETED, ["deleted"]))
    customer.version += 1
    customer.updated_at = max(now, customer.updated_at)
    customer.save(update_fields=[*MUTABLE, "version", "updated_at", "deleted_at", "erased_at"])
    events = [
        customer_event(customer, type=type_, changed=changed, origin=origin, priority="interactive")
        for type_, changed in news
    ]
    return publish_many(events)[-1]


def _pass(erasure: Erasure, values: set[str]) -> None:
    # Asked before the pass: what had ended by then writes nothing after it.
    erasure.waits_for = [one[:200] for one in erasure_waits_for(erasure)]
    traces_erase(customer_id=erasure.pk, values=values)
    now = timezone.now()
    erasure.passes += 1
    if erasure.waits_for:
        erasure.next_pass_at = now + (AGAIN if erasure.passes < _PATIENT_AFTER else AGAIN_LATER)
    else:
        erasure.finished_at = erasure.finished_at or now
        is_watched = now - erasure.finished_at < WATCHED
        erasure.next_pass_at = now + timedelta(days=1) if is_watched else None
    erasure.save(update_fields=["waits_for", "passes", "next_pass_at", "finished_at"])
