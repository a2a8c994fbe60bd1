"""Protected changes as functions: they return when every integration has the change too, or raise when nobody has it.

Each may raise, beside what the same function without protection raises:

* ``IntegrationRefused``, ``IntegrationSilent``, ``RemoteConflict``, ``DeleteRefused``, ``CustomerDeleted``: nothing was
  changed, and what had been sent was undone; as ``SagaUndone``, which carries the problem as a document.
* ``SagaUndecided``: the time limit ended first; the saga goes on, and its address says how it ends.
* ``SagasBusy``, ``CustomerBusy``, ``KeyInFlight``, ``KeyReused``: nothing was begun.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any
from uuid import UUID

import orjson
from django.db import Error

from customers.changing import Versions
from customers.events import Priority
from customers.models import Customer, Saga
from customers.sagas.answers import saga_answer
from customers.sagas.beginning import Wanted, saga_begin
from customers.sagas.errors import SagaUndecided, SagaUndone
from customers.sagas.lease import SagaLease
from customers.sagas.places import Place
from dbresilience.errors import CommitUnknown
from operations.idempotency.errors import KeyInFlight
from operations.idempotency.keys import Answer, HeldKey, Scope, answer_kept, key_begin
from operations.idempotency.requests import fingerprint_of, key_of_header

Action = Saga.Action


class Started:
    """A protected change that has begun: from here on it ends one way or the other, whoever dies.

    Args:
        wanted: what it is to do.

    Raises:
        CustomerError, KeyInFlight, SagasBusy: nothing was begun.
    """

    def __init__(self, wanted: Wanted) -> None:
        self._held = wanted.held
        if wanted.held is not None:
            _refuse_second(wanted.held)
        self._place = Place()
        try:
            self._lease: SagaLease = saga_begin(wanted)
        except BaseException:
            self._place.leave()
            raise

    def answer(self) -> Answer:
        """Carry it out, or wait for whoever does, and say how it ended.

        Raises:
            SagaUndecided: not within the time limit.
        """
        if (ended := self._place.carry_out(self._lease)) is not None:
            return ended.answer
        if self._held is not None and (kept := answer_kept(key_id=self._held.id)) is not None:
            return kept
        saga = Saga.objects.get(pk=self._lease.saga_id)
        if (answer := saga_answer(saga)) is None:
            raise SagaUndecided(saga.url)
        return answer


def _refuse_second(held: HeldKey) -> None:
    """Refuse a request that took over a key whose saga goes on."""
    if (saga := Saga.objects.filter(idempotency_id=held.id).first()) is not None:
        refused = KeyInFlight(headers={"Retry-After": "1", "Location": saga.url})
        refused.members["saga"] = saga.url
        raise refused


def created(
    *, values: Mapping[str, Any], origin: str, priority: Priority, actor: str, idempotency_key: str | None
) -> Customer:
    """See ``customers.services.customer_create``."""
    wanted = Wanted(action=Action.CREATE, values=values, origin=origin, priority=priority, actor=actor)
    return _customer(_called("customer_create", wanted, idempotency_key), None)


def updated(
    *,
    customer_id: UUID,
    changes: Mapping[str, Any],
    if_version: Versions,
    origin: str,
    priority: Priority,
    actor: str,
    idempotency_key: str | None,
) -> Customer:
    """See ``customers.services.customer_update``."""
    wanted = Wanted(
        action=Action.UPDATE,
        customer_id=customer_id,
        values=changes,
        if_version=if_version,
        origin=origin,
        priority=priority,
        actor=actor,
    )
    return _customer(_called("customer_update", wanted, idempotency_key), customer_id)


def deleted(
    *,
    customer_id: UUID,
    if_version: Versions,
    origin: str,
    priority: Priority,
    actor: str,
    idempotency_key: str | None,
) -> Customer:
    """See ``customers.services.customer_delete``."""
    wanted = Wanted(
        action=Action.DELETE,
        customer_id=customer_id,
        if_version=if_version,
        origin=origin,
        priority=priority,
        actor=actor,
    )
    return _customer(_called("customer_delete", wanted, idempotency_key), customer_id)


def _called(name: str, wanted: Wanted, idempotency_key: str | None) -> Answer:
    if idempotency_key is None:
        return Started(wanted).answer()
    said = orjson.loads(orjson.dumps([wanted.customer_id, dict(wanted.values)]))
    scope = Scope(actor=wanted.actor, key=key_of_header(idempotency_key), method="CALL", route=name)
    held = key_begin(scope, fingerprint_of("CALL", name, [], said))
    if isinstance(held, Answer):
        return held
    try:
        started = Started(replace(wanted, held=held))
    except (KeyInFlight, CommitUnknown):
        # Its saga may go on; whoever repeats the key finds out.
        raise
    except BaseException:
        with suppress(Error):
            held.release()
        raise
    return started.answer()


def _customer(answer: Answer, customer_id: UUID | None) -> Customer:
    document = orjson.loads(answer.body) if answer.body else {}
    if answer.status >= 400:
        raise SagaUndone(document)
    return Customer.objects.get(pk=customer_id or document["id"])
