"""Taking a person out of the protected changes of their customer."""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

from customers.models import Saga, SagaStep
from customers.models.sagas import OPEN

_FACTS: Final = ("type", "title", "status", "code", "correlation_id", "saga", "undone")


def sagas_erase(*, customer_id: UUID) -> None:
    """Empty what the customer's sagas hold of it, in the transaction under way; again is harmless.

    One that is under way is left: it needs what it holds, and empties itself when it ends.
    """
    sagas = Saga.objects.filter(customer_id=customer_id).exclude(status__in=OPEN)
    for saga in sagas.select_for_update(no_key=True).order_by("id"):
        said: dict[str, Any] | None = None
        if saga.failure is not None:
            said = {name: saga.failure[name] for name in _FACTS if name in saga.failure}
        Saga.objects.filter(pk=saga.pk).update(failure=said, values={}, last_error_message="")
        SagaStep.objects.filter(saga=saga).update(before=None, error_message="")


def saga_under_way(*, customer_id: UUID) -> bool:
    """Whether one of the customer's sagas may still write down what it holds."""
    return Saga.objects.open().filter(customer_id=customer_id).exists()
