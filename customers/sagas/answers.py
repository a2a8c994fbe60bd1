"""How a saga that has ended is answered: to whoever waits, and to whoever repeats its idempotency key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

import orjson

from customers.api.etags import etag
from customers.api.serializers import UNCACHED, customer_representation
from customers.events import AGGREGATE
from customers.models import Customer, Saga, SagaStep
from customers.sagas.run import SagaRefused
from operations.idempotency.keys import Answer
from operations.problem_details import MEDIA_TYPE, document_of

_STATUS: Final = {Saga.Action.CREATE: 201, Saga.Action.UPDATE: 200, Saga.Action.DELETE: 204}
_UNDONE: Final = SagaStep.Status.UNDONE


def customer_answer(saga: Saga, customer: Customer) -> Answer:
    """The answer of one that was done.

    Args:
        customer: as it is after it, with its sync states.
    """
    subject = _subject(customer.pk)
    event = {} if customer.event_id is None else {"X-Event-Id": str(customer.event_id)}
    if saga.action == Saga.Action.DELETE:
        return Answer(status=204, body=b"", headers=event, subject=subject)
    body = customer_representation(customer)
    headers = {"ETag": etag(customer.version, body["integrations"]), **UNCACHED, **event}
    if saga.action == Saga.Action.CREATE:
        headers["Location"] = f"{saga.address}/{customer.pk}/"
    return Answer(
        status=_STATUS[Saga.Action(saga.action)],
        body=orjson.dumps(body),
        headers={**headers, "Content-Type": "application/json"},
        subject=subject,
    )


def failure_document(saga: Saga, refused: SagaRefused) -> dict[str, Any]:
    """The problem of one that turned back, without what was undone, which is not known yet."""
    document = document_of(refused.problem)
    failed = {"step": "", "integration": None, "code": refused.code[:64], "message": refused.message[:2000]}
    if refused.step is not None:
        failed |= {"step": refused.step.kind, "integration": refused.step.integration or None}
    return {**document, "saga": saga.url, "failed": failed}


def undone_document(saga: Saga, steps: Sequence[SagaStep]) -> dict[str, Any]:
    """The problem of one that was undone, with what that was."""
    undone = [{"step": step.kind, "integration": step.integration or None} for step in steps if step.status == _UNDONE]
    return {**(saga.failure or {}), "undone": undone}


def saga_answer(saga: Saga) -> Answer | None:
    """The answer of one that was brought to its end elsewhere; None while it has not ended."""
    if saga.status == Saga.Status.DONE:
        return customer_answer(saga, Customer.objects.prefetch_related("sync_states").get(pk=saga.customer_id))
    return undone_answer(saga, saga.failure) if saga.status == Saga.Status.UNDONE and saga.failure else None


def undone_answer(saga: Saga, document: dict[str, Any]) -> Answer:
    """That problem as an answer; it may quote the integration, which quotes what it was sent."""
    return Answer(
        status=document["status"],
        body=orjson.dumps(document),
        headers={"Content-Type": MEDIA_TYPE},
        subject=_subject(saga.customer_id),
    )


def _subject(customer_id: UUID) -> str:
    return f"{AGGREGATE}:{customer_id}"
