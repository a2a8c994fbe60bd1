"""What protected changes know of the life of things: each one with its outcome, and its steps in their order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Final

from django.db.models import Prefetch
from django.urls import reverse

from customers.events import AGGREGATE
from customers.models import Saga, SagaStep
from operations.identifiers import uuids_of
from operations.life.sources import CORRELATION, Entry, LifeSource, Name, Subject, Term, Thread, Told, first_of
from operations.overview import Tone

SAGA: Final = "saga"

_TONES: Final[dict[str, Tone]] = {"done": "good", "undone": "warn", "stuck": "bad", "refused": "bad"}


class SagaLife(LifeSource):
    """Protected changes and their steps."""

    name = "sagas"
    title = "Protected changes"
    permission = "customers.view_saga"
    order = 45

    def recognise(self, term: Term) -> Sequence[Subject]:
        found = []
        for saga in Saga.objects.filter(pk__in=uuids_of([term.of(SAGA) or term.text])).defer("values"):
            others = {Name(AGGREGATE, str(saga.customer_id))}
            if saga.correlation_id:
                others.add(Name(CORRELATION, saga.correlation_id))
            name = Name(SAGA, str(saga.pk))
            found.append(Subject(name=name, title=f"Protected {saga}", others=frozenset(others)))
        return found

    def tell(self, thread: Thread) -> Told:
        steps = Prefetch("steps", SagaStep.objects.order_by("number"))
        rows = Saga.objects.defer("values").prefetch_related(steps)
        asked = [
            # By the primary key, and by the indexes saga_by_customer and saga_by_correlation.
            first_of(rows.filter(pk__in=uuids_of(thread.named(SAGA))), "id"),
            first_of(rows.filter(customer_id__in=uuids_of(thread.named(AGGREGATE))), "customer_id", "-id"),
            first_of(
                rows.filter(correlation_id__in=thread.named(CORRELATION)).exclude(correlation_id=""), "correlation_id"
            ),
        ]
        found = {saga.pk: saga for saga in chain.from_iterable(part for part, _ in asked)}
        entries = [entry for saga in found.values() for entry in _entries(saga)]
        return Told(entries, more=any(more for _, more in asked))


def _entries(saga: Saga) -> Iterator[Entry]:
    about = [Name(SAGA, str(saga.pk)), Name(AGGREGATE, str(saga.customer_id))]
    if saga.correlation_id:
        about.append(Name(CORRELATION, saga.correlation_id))
    url = reverse("admin:customers_saga_change", args=[saga.pk])
    why = str((saga.failure or {}).get("code") or saga.last_error_code)
    yield Entry(
        kind="saga",
        id=str(saga.pk),
        what=f"Protected {saga.action}",
        at=saga.created_at,
        ended_at=saga.finished_at,
        state=str(saga.status),
        tone=_TONES.get(saga.status, "plain"),
        text="; ".join(filter(None, (", ".join(saga.fields), why))),
        url=url,
        about=about,
    )
    for step in saga.steps.all():
        if step.started_at is None:
            continue
        yield Entry(
            kind="saga_step",
            id=f"{saga.pk}:{step.number}",
            what=f"Step {step.number}: {step}",
            at=step.started_at,
            ended_at=step.finished_at,
            state=str(step.status),
            tone=_TONES.get(step.status, "plain"),
            attempts=step.attempts + step.undo_attempts,
            text=step.error_code,
            url=url,
            about=about,
        )
