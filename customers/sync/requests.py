"""The one request in flight of a sync state: frozen, sent, repeated, and its outcome learned.

A request is written down before it is sent, with its idempotency key and its very parameters, and nothing else is
frozen for the row until it is resolved (a unique index holds that). So whoever comes after a crash or a lost answer
repeats the same key and body: if the first one had its effect, the saved answer comes back; if not, it has it now,
once. Four things end that trust, and then the effect is looked up instead: the key's age (by the database's clock),
an answer that is a replay of a failure (that key can never give another), a key that the integration says was used
with another body, and a repeat that is refused on its own account: that says nothing about the send before it, which
may have had its effect. When the look-up itself fails, nothing is concluded and the row is retried.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from django.db import connection
from django.db.models import F, Func

from customers.integrations import (
    Changes,
    Fields,
    IntegrationError,
    KeyMisused,
    PermanentError,
    RemoteMissing,
    RemoteRecord,
)
from customers.models import SyncRequest, SyncState
from customers.sync.closing import record_link, request_close, request_resolve, written
from customers.sync.fields import fields_advance
from customers.sync.lease import lease_locked
from customers.sync.lookup import look_up
from customers.sync.quoting import quoting_nothing
from customers.sync.settle import base_columns, settle
from customers.sync.work import Work
from dbresilience.transactions import run_in_transaction
from operations.correlation import correlation_id
from operations.tracing import traceparent

Method = SyncRequest.Method
Outcome = SyncRequest.Outcome


def request_freeze(state: SyncState, *, method: Method, body: dict[str, Any], fields: Changes) -> SyncRequest:
    """Write a request down, in the transaction that decided it.

    After a look-up that found nothing it goes on under the next generation of the same key (``uid:2``), so that the
    requests of one wish can be told.

    Args:
        state: the row, locked.
        body: parameters as they will be sent, now and at every repeat.
        fields: what the base takes over on success; None removes a field.
    """
    last = SyncRequest.objects.filter(state=state).order_by("-id").first()
    again = last is not None and last.method == method and last.outcome == Outcome.ABANDONED
    key = {"uid": last.uid, "generation": last.generation + 1} if last is not None and again else {}
    return SyncRequest.objects.create(
        state=state,
        method=method,
        body=body,
        fields=dict(fields),
        correlation_id=correlation_id(),
        traceparent=traceparent(),
        **key,
    )


def request_send(work: Work, request: SyncRequest, *, expected: Fields) -> bool:
    """Send a request that was just frozen, and settle the row with it.

    Args:
        expected: the fields that the record must have afterwards if nobody else touches it.

    Returns:
        True when the row is settled; False when it must be looked at again under the same lease.
    """
    record = _outcome_of(work, request)
    if record is None:
        return False

    def write() -> None:
        row = _succeed(work, request, record)
        # Something else changed between our fetch and our push, or the integration tidied what we sent.
        differs = request.method != Method.DELETE and record.fields != expected
        status = SyncState.Status.DELETED if request.method == Method.DELETE else None
        settle(work, row, status=status, look_again=differs)

    written(write)
    work.step("settled")
    return True


def request_carry_out(work: Work, request: SyncRequest, *, repeated: bool = False) -> bool:
    """Send a request that was just frozen; when it had its effect, base and link say so. The row stays taken.

    Args:
        repeated: it was sent before, and nobody knows what became of that.

    Returns:
        False when the row must be looked at again under the same lease.
    """
    record = _outcome_of(work, request, repeated=repeated)
    if record is None:
        return False
    found = record
    written(lambda: _keep_taken(_succeed(work, request, found)))
    work.step("resolved")
    return True


def request_finish(work: Work, request: SyncRequest) -> None:
    """Learn the outcome of a request that another worker, or an earlier attempt, left in flight.

    Raises:
        IntegrationError: it is still not known, or it was refused.
    """
    if request.resume:
        # Sent again, it could be created after the part that the look-up has seen.
        look_up(work, request, why="a look-up goes on")
        return
    if _age(request) > work.integration.key_lifetime:
        look_up(work, request, why="the key is too old to be trusted")
        return

    def count() -> None:
        lease_locked(work.lease)
        SyncRequest.objects.filter(pk=request.pk).update(
            sends=F("sends") + 1, last_sent_at=Func(function="clock_timestamp")
        )

    run_in_transaction(count)
    request_carry_out(work, request, repeated=True)


def _outcome_of(work: Work, request: SyncRequest, *, repeated: bool = False) -> RemoteRecord | None:
    """Send and sort the answers; None when the request is resolved without a success."""
    try:
        record = work.call(lambda: _send(work, request))
    except KeyMisused as exc:
        look_up(work, request, why=exc.message)
        return None
    except RemoteMissing as exc:
        # An update of what is gone: how it went, and what that means, is seen by the next fetch.
        request_resolve(work, request, Outcome.ABANDONED, error=exc)
        return None
    except PermanentError as exc:
        if repeated and not exc.replayed:
            look_up(work, request, why=f"a repeat was refused: {exc.message}")
            return None
        request_resolve(work, request, Outcome.REFUSED, error=exc)
        raise
    except IntegrationError as exc:
        if not exc.replayed:
            raise
        look_up(work, request, why=f"a saved failure came back: {exc.message}")
        return None
    work.step("answered")
    return record


def _send(work: Work, request: SyncRequest) -> RemoteRecord:
    with quoting_nothing(request.body):
        return _sent(work, request)


def _sent(work: Work, request: SyncRequest) -> RemoteRecord:
    integration = work.integration
    if request.method == Method.CREATE:
        return integration.create(body=request.body, key=request.key)
    remote_id = request.state.remote_id or ""
    if request.method == Method.UPDATE:
        return integration.update(remote_id=remote_id, body=request.body, key=request.key)
    # Missing: the answer to the first one was lost, or somebody else deleted it. Either way it is gone.
    with suppress(RemoteMissing):
        integration.delete(remote_id=remote_id, key=request.key)
    return RemoteRecord(remote_id=remote_id, deleted=True)


def _succeed(work: Work, request: SyncRequest, record: RemoteRecord) -> SyncState:
    """In one transaction: the request is resolved and the base takes over exactly the fields that were sent."""
    state = lease_locked(work.lease)
    request_close(request, Outcome.SUCCEEDED)
    if request.method == Method.DELETE:
        return state
    record_link(work, state, record.remote_id)
    state.base = fields_advance(state.base, request.fields, request.fields)
    SyncState.objects.filter(pk=state.pk).update(**base_columns(state.base), remote_id=state.remote_id)
    return state


def _keep_taken(state: SyncState) -> None:
    """The row stays with its holder, who looks at it next."""


def _age(request: SyncRequest) -> float:
    """Seconds since the first send, by the clock that wrote it."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT EXTRACT(EPOCH FROM clock_timestamp() - %s::timestamptz)::float", [request.first_sent_at])
        row = cursor.fetchone()
    return float(row[0])
