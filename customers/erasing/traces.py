"""Where a customer's data lies besides its row, and how it is taken out of there.

Rows of the customer go by their keys. What may quote one of its values in free text (reasons, notes, details of the
audit trail) is found by those values, which only the first pass knows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final
from uuid import UUID

from django.db.models import Q

from customers.erasing.messages import webhooks_erase
from customers.events import AGGREGATE, customer_payload_erased
from customers.models import Conflict, Drift, SyncRequest, SyncState
from customers.sagas.erasing import sagas_erase
from operations.erasing import ERASED, texts_erase
from operations.idempotency.keys import answers_forget
from outbox.erasing import aggregate_erase
from projections.erasing import failures_erase

# What says which rows a conflict is about, and nothing of a person.
_REFERENCES: Final = ("remote_id", "customer_id")
_PERSONAL: Final = ("email", "name", "phone")
# Shorter ones would be found in words that say nothing of anybody.
_WORD_SHORTEST: Final = 4


def traces_erase(*, customer_id: UUID, values: Iterable[str]) -> None:
    """Take a customer's data out of everything but its row, in the transaction under way; again is harmless.

    Left as they are, until they have ended: a request to an integration whose outcome is not known (its parameters
    are repeated word by word) and a webhook that was not worked on yet.

    Args:
        customer_id: whose row is empty already.
        values: what it was known by; those that its events say are added.
    """
    known = set(values)

    def redact(payload: dict[str, Any]) -> dict[str, Any]:
        known.update(values_of(payload))
        return customer_payload_erased(payload)

    states = list(SyncState.objects.select_for_update(no_key=True).filter(customer=customer_id).order_by("id"))
    SyncState.objects.filter(customer=customer_id).update(base=None, base_hash="", last_error_message="")
    requests = SyncRequest.objects.filter(state__in=states, resolved_at__isnull=False)
    requests.exclude(body={}, fields={}, error_message="").update(body={}, fields={}, error_message="")
    conflicts = _conflicts_erase(states)
    drifts = _differences_erase(customer_id, states)
    webhooks_erase(customer_id=customer_id)
    sagas_erase(customer_id=customer_id)
    for subject in (f"{AGGREGATE}:{customer_id}", *_remote_subjects(states)):
        answers_forget(subject=subject)
    traces = aggregate_erase(aggregate_type=AGGREGATE, aggregate_id=str(customer_id), redact=redact)
    failures_erase(aggregate_type=AGGREGATE, aggregate_id=str(customer_id))
    targets = [
        f"{AGGREGATE}:{customer_id}",
        *(f"syncstate:{state.pk}" for state in states),
        *(f"conflict:{pk}" for pk in conflicts),
        *(f"drift:{pk}" for pk in drifts),
        *(f"delivery:{pk}" for pk in traces.deliveries),
        *(f"consumed:{pk}" for pk in traces.consumed),
    ]
    texts_erase(values=known, targets=targets)


def values_of(said: Mapping[str, Any]) -> set[str]:
    """The values by which the texts that speak of a customer are found.

    Args:
        said: a payload of its events, or its fields.
    """
    found = {str(said[name]) for name in _PERSONAL if said.get(name)}
    found |= {word for word in str(said.get("name") or "").split() if len(word) >= _WORD_SHORTEST}
    for name in ("address", "metadata"):
        inner = said.get(name)
        if isinstance(inner, Mapping):
            found |= {str(value) for value in inner.values() if len(str(value)) >= _WORD_SHORTEST}
    return found


def _conflicts_erase(states: list[SyncState]) -> list[int]:
    conflicts = list(Conflict.objects.filter(state__in=states).select_for_update())
    for conflict in conflicts:
        conflict.base = None
        conflict.ours, conflict.theirs = _references(conflict.ours), _references(conflict.theirs)
        if conflict.kind != Conflict.Kind.DELETE_REFUSED:
            conflict.detail = ""
        conflict.save(update_fields=["base", "ours", "theirs", "detail"])
    return [conflict.pk for conflict in conflicts]


def _references(said: Any) -> dict[str, Any] | None:
    if not isinstance(said, dict):
        return None
    return {name: said[name] for name in _REFERENCES if name in said} or None


def _remote_subjects(states: list[SyncState]) -> list[str]:
    return [f"remote:{state.remote_id}" for state in states if state.remote_id]


def _differences_erase(customer_id: UUID, states: list[SyncState]) -> list[int]:
    # There are few, of late comparisons alone: those that were found before the customer was linked are read for.
    about = Drift.objects.filter(
        Q(customer=customer_id) | Q(state__in=states) | Q(subject__in=_remote_subjects(states))
    )
    drifts = list(about.select_for_update())
    for drift in drifts:
        # The names stay, and the shape that readers know.
        drift.fields = [{**one, "base": None, "ours": None, "theirs": None} for one in drift.differing]
        drift.detail, drift.outcome = drift.detail and ERASED, drift.outcome and ERASED
        drift.save(update_fields=["fields", "detail", "outcome"])
    return [drift.pk for drift in drifts]
