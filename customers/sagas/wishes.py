"""What a saga wants of an integration, given what is there: forwards its change, back what was there before."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

from customers.errors import CustomerDeleted
from customers.integrations import Changes, Fields, RemoteRecord
from customers.models import Customer, Saga, SagaStep, SyncState
from customers.sagas.errors import DeleteRefused, RemoteConflict, SagaWaits
from customers.sagas.run import SagaRefused
from customers.sync.fields import customer_fields, root_of
from customers.sync.merge import merge
from customers.sync.requests import Method
from customers.sync.settle import BLOCKING
from customers.sync.work import Work
from operations.errors import ProblemError


@dataclass(frozen=True, slots=True)
class Seen:
    """What was read without a lock; a record that was not asked for is None too."""

    version: int | None
    remote: RemoteRecord | None = None
    obstacle: str = ""


@dataclass(frozen=True, slots=True)
class Wish:
    """A request that is to be sent.

    Attributes:
        fields: what the base takes over when it succeeds; None removes a field.
        before: what those fields were there.
    """

    method: Method
    body: dict[str, Any] = field(default_factory=dict)
    fields: Changes = field(default_factory=dict)
    before: Changes = field(default_factory=dict)


def wish_forward(work: Work, step: SagaStep, state: SyncState, customer: Customer | None, seen: Seen) -> Wish | None:
    """What is still to be sent so that the integration has what the saga wants.

    Raises:
        SagaRefused: a rule forbids it.
    """
    saga, integration = step.saga, work.integration
    if saga.action == Saga.Action.DELETE:
        if seen.remote is None or seen.remote.deleted:
            return None
        if seen.obstacle:
            raise _refused(DeleteRefused(seen.obstacle), step)
        return Wish(Method.DELETE)
    wanted = customer_fields(_wanted(saga, customer), integration.roots)
    if state.remote_id is None:
        if state.conflicts.open().filter(kind__in=BLOCKING).exists():
            detail = "Which record in the integration is this customer's must be decided first."
            raise _refused(RemoteConflict(detail), step)
        body = integration.create_body(reference=str(saga.customer_id), fields=wanted)
        here = customer_fields(customer, integration.roots) if customer is not None else {}
        return Wish(Method.CREATE, body, wanted, {name: here.get(name) for name in wanted})
    if customer is None:
        # A create that is there already, by an earlier run of this step.
        return None
    if seen.remote is None:
        raise _refused(RemoteConflict("The integration does not know the record of this customer."), step)
    if seen.remote.deleted:
        raise _refused(CustomerDeleted("The customer was deleted in the integration."), step)
    return _update(work, step, state, customer, wanted, seen.remote)


def wish_back(work: Work, step: SagaStep, state: SyncState, customer: Customer | None, seen: Seen) -> Wish | None:
    """What is still to be sent so that the integration has what it had before the saga.

    Raises:
        SagaWaits: a person must look.
    """
    saga = step.saga
    if saga.action == Saga.Action.DELETE or seen.remote is None or seen.remote.deleted:
        # A deletion turns back only before the first record was deleted.
        return None
    if saga.action == Saga.Action.CREATE:
        if seen.obstacle:
            raise SagaWaits(error_class="permanent", code="delete_refused", message=seen.obstacle, is_strike=True)
        return Wish(Method.DELETE)
    if not step.took_effect or step.request is None:
        return None
    sent, before = step.request.fields, step.before or {}
    theirs = seen.remote.fields
    # A field that somebody changed there since is theirs: it is left, and the ordinary synchronisation judges it.
    back = {
        name: before.get(name)
        for name, value in sent.items()
        if theirs.get(name) == value and before.get(name) != value
    }
    return Wish(Method.UPDATE, work.integration.update_body(changes=back), back) if back else None


def _update(
    work: Work, step: SagaStep, state: SyncState, customer: Customer, wanted: Fields, remote: RemoteRecord
) -> Wish | None:
    """The saga's fields that the record has not yet; other differences are the ordinary synchronisation's."""
    integration, roots = work.integration, set(step.saga.fields)
    here = customer_fields(customer, integration.roots)
    theirs = {name: value for name, value in remote.fields.items() if root_of(name) in integration.roots}
    plan = merge(base=state.base, ours=wanted, theirs=theirs, owner=work.config.owner_of)
    changed = {name for name in wanted.keys() | here.keys() if wanted.get(name) != here.get(name)}
    lost = changed & {*plan.pulled, *(conflict.field for conflict in plan.conflicts)}
    if lost:
        detail = f"Changed in the integration since both sides agreed: {', '.join(sorted(lost))}."
        raise _refused(RemoteConflict(detail), step)
    pushed = {name: value for name, value in plan.pushed.items() if root_of(name) in roots}
    if not pushed:
        return None
    before = {name: theirs.get(name) for name in pushed}
    return Wish(Method.UPDATE, integration.update_body(changes=pushed), pushed, before)


def _wanted(saga: Saga, customer: Customer | None) -> Customer:
    """The customer as it would be; not saved."""
    wanted = copy.copy(customer) if customer is not None else Customer(id=saga.customer_id)
    for name, value in saga.values.items():
        setattr(wanted, name, {} if value is None and name in ("address", "metadata") else value)
    return wanted


def _refused(problem: ProblemError, step: SagaStep) -> SagaRefused:
    return SagaRefused(problem, step=step, code=problem.code, message=problem.detail)
