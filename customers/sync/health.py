"""Where one customer stands in each integration, whole: state, work, request in flight, conflicts and drift."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any
from uuid import UUID

from django.conf import settings
from django.utils import timezone

from customers.errors import CustomerNotFound
from customers.instants import instant_text
from customers.integrations import Fields, Integration, IntegrationError, RemoteRecord, integration_get
from customers.models import Conflict, Customer, Priority, SyncRequest, SyncState
from customers.sync.conf import sync_settings
from customers.sync.fields import customer_fields, root_of
from customers.sync.live_looks import live_look
from customers.sync.merge import merge
from customers.sync.ratelimit import Gate
from customers.sync.resolutions import conflict_sides

_PATIENCE = 2.0


def sync_health(*, customer_id: UUID, live: bool = False) -> dict[str, Any]:
    """The whole of it as JSON; also of a deleted customer, whose deletion may be under way.

    Args:
        live: ask each integration now, one call for each, within its rate limit. An integration that does not answer
            is said to be ``unknown``, with its error.

    Raises:
        CustomerNotFound: there never was one.
        LiveLooksBusy: as many as may are asking the integrations already.
    """
    customer = Customer.objects.filter(pk=customer_id).first()
    if customer is None:
        raise CustomerNotFound
    states = {state.integration: state for state in SyncState.objects.filter(customer=customer)}
    names = [*settings.INTEGRATIONS, *(name for name in states if name not in settings.INTEGRATIONS)]
    with live_look() if live else nullcontext():
        integrations = {name: _integration(customer, name, states.get(name), live=live) for name in names}
    return {
        "customer_id": str(customer.pk),
        "version": customer.version,
        "deleted_at": _instant(customer.deleted_at),
        "integrations": integrations,
    }


def _integration(customer: Customer, name: str, state: SyncState | None, *, live: bool) -> dict[str, Any]:
    if state is None:
        # Nobody has looked yet; the row's defaults say just that.
        state = SyncState(
            integration=name,
            livemode=False,
            status=SyncState.Status.PENDING if customer.deleted_at is None else SyncState.Status.DELETED,
            priority=Priority.INTERACTIVE,
            dirty_at=customer.updated_at,
            attempts=0,
            last_error_class="",
            last_error_code="",
            last_error_message="",
        )
    request = SyncRequest.objects.in_flight().filter(state=state).first() if state.pk else None
    conflicts = list(state.conflicts.open().select_related("state").order_by("id")) if state.pk else []
    configured = integration_get(name) if name in settings.INTEGRATIONS else None
    drift = _drift_now(customer, state, configured) if live else _drift_known(customer, state, configured, conflicts)
    return {
        "status": str(state.status),
        "remote_id": state.remote_id,
        "account": state.account or None,
        "livemode": state.livemode if state.pk else getattr(configured, "livemode", False),
        "dirty_since": _instant(state.dirty_at),
        "priority": Priority(state.priority).name.lower() if state.dirty_at else None,
        "being_looked_at": state.is_worked_on,
        "attempts": state.attempts,
        "next_attempt_at": _instant(state.attempt_due_at) if state.pk else None,
        "last_success_at": _instant(state.last_success_at),
        "last_error": _error(state.last_error_class, state.last_error_code, state.last_error_message),
        "request_in_flight": _request(request),
        "conflicts": [_conflict(conflict) for conflict in conflicts],
        "drift": drift,
    }


def _drift_known(
    customer: Customer, state: SyncState, integration: Integration | None, conflicts: list[Conflict]
) -> dict[str, Any]:
    """What differs as of the last look: what changed here since, and what that look found on both sides."""
    base = state.base or {}
    theirs = dict(base)
    for conflict in conflicts:
        if conflict.kind == Conflict.Kind.FIELD:
            if conflict.theirs is None:
                theirs.pop(conflict.field, None)
            else:
                theirs[conflict.field] = conflict.theirs
    remote = "unlinked" if state.remote_id is None else "as_of_last_look"
    return _drift(customer, state, integration, theirs, remote=remote, as_of=_instant(state.last_success_at))


def _drift_now(customer: Customer, state: SyncState, integration: Integration | None) -> dict[str, Any]:
    now = instant_text(timezone.now())
    if integration is None or state.remote_id is None:
        return _drift(customer, state, integration, {}, remote="unlinked", as_of=now)
    try:
        record = _fetched(integration, state.remote_id)
    except IntegrationError as exc:
        error = _error(exc.error_class, exc.code, exc.message)
        return {"as_of": now, "remote": "unknown", "fields": [], "error": error}
    if record is None or record.deleted:
        remote = "missing" if record is None else "deleted"
        return _drift(customer, state, integration, {}, remote=remote, as_of=now)
    return _drift(customer, state, integration, record.fields, remote="present", as_of=now)


def _fetched(integration: Integration, remote_id: str) -> RemoteRecord | None:
    Gate(integration).take(Priority.INTERACTIVE, patience=_PATIENCE)
    return integration.retrieve(remote_id=remote_id)


def _drift(
    customer: Customer, state: SyncState, integration: Integration | None, theirs: Fields, *, remote: str, as_of: Any
) -> dict[str, Any]:
    roots = integration.roots if integration is not None else frozenset()
    ours = customer_fields(customer, roots)
    held = {name: value for name, value in theirs.items() if root_of(name) in roots}
    plan = merge(base=state.base, ours=ours, theirs=held, owner=sync_settings().owner_of)
    both = {conflict.field for conflict in plan.conflicts}
    differing = sorted({*plan.pushed, *plan.pulled, *both})
    fields = [
        {
            "field": name,
            "changed": "both" if name in both else "here" if name in plan.pushed else "there",
            "base": (state.base or {}).get(name),
            "ours": ours.get(name),
            "theirs": held.get(name),
        }
        for name in differing
    ]
    return {"as_of": as_of, "remote": remote, "fields": fields, "error": None}


def _request(request: SyncRequest | None) -> dict[str, Any] | None:
    if request is None:
        return None
    return {
        "method": str(request.method),
        "first_sent_at": instant_text(request.first_sent_at),
        "last_sent_at": instant_text(request.last_sent_at),
        "sends": request.sends,
    }


def _conflict(conflict: Conflict) -> dict[str, Any]:
    return {
        "id": conflict.pk,
        "kind": str(conflict.kind),
        "field": conflict.field or None,
        "base": conflict.base,
        "ours": conflict.ours,
        "theirs": conflict.theirs,
        "detail": conflict.detail,
        "opened_at": instant_text(conflict.opened_at),
        "takes": list(conflict_sides(conflict)),
    }


def _error(kind: str, code: str, message: str) -> dict[str, str] | None:
    return {"class": kind, "code": code, "message": message} if kind else None


def _instant(value: Any) -> str | None:
    return instant_text(value) if value is not None else None
