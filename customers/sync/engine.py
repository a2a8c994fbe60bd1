"""``sync_once``: make one customer the same here and in one integration, or write down why not.

The order is what makes it safe:

1. take the lease (its token fences every later write);
2. finish the request in flight, if there is one: until its outcome is known, any merge would take our own change for
   somebody else's;
3. read the customer and its version, fetch the record, with no lock held;
4. lock; if the version moved, go to 3; else merge field by field, pull, and freeze what must be sent;
5. send what was frozen: only fields that differ from the base;
6. settle, conditional on the token: the base takes over exactly the fields that were sent or pulled.

Nothing is done *because of* a message: it only says "look again". So messages may be late, lost, doubled or out of
order, and a look that finds no difference sends nothing and publishes nothing: there is no echo.

What cannot be closed: Stripe has no conditional update, so an edit there in the milliseconds between our fetch and our
push of the **same field** is overwritten. It is a change of one field on both sides at once, and other fields are
safe: only what changed here is sent.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Final

import structlog
from django.db import InterfaceError, OperationalError

from customers.integrations import (
    ConfigurationError,
    IntegrationError,
    PermanentError,
    RetryableError,
    integration_get,
)
from customers.models import SyncRequest, SyncState
from customers.sync.conf import sync_settings
from customers.sync.lease import Lease, LeaseLost, lease_locked, lease_take
from customers.sync.look import Frozen, Look, look
from customers.sync.ratelimit import NoToken
from customers.sync.requests import request_finish, request_send
from customers.sync.settle import settle, settle_failure, settle_put_off
from customers.sync.work import Work, no_step
from dbresilience.transactions import run_in_transaction
from operations.correlation import work_bound

log = structlog.get_logger(__name__)

# A customer that changes during every fetch is left dirty for the next worker instead of holding this one.
_ROUNDS: Final = 5


class Outcome(StrEnum):
    """How a sync ended."""

    DONE = "done"
    FAILED = "failed"
    PUT_OFF = "put_off"
    LEASE_LOST = "lease_lost"
    NOT_TAKEN = "not_taken"


def sync_once(state_id: int, *, on_step: Callable[[str], None] = no_step) -> Outcome:
    """Take the row and synchronise it.

    Args:
        state_id: id of the ``SyncState``.
        on_step: called at each boundary between a commit and a call, where a process may die.

    Returns:
        What happened; the row says the rest. NOT_TAKEN when another worker holds it.
    """
    lease = lease_take(state_id, seconds=sync_settings().lease)
    if lease is None:
        return Outcome.NOT_TAKEN
    return sync_leased(lease, on_step=on_step)


def sync_leased(lease: Lease, *, on_step: Callable[[str], None] = no_step) -> Outcome:
    """Synchronise a row that was taken, and give it back; under the correlation id of what asked for it last."""
    with work_bound("sync", correlation=lease.correlation_id, traceparent=lease.traceparent, kind="consumer") as work:
        outcome = _sync_leased(lease, on_step)
        failed = outcome.value if outcome is Outcome.FAILED else ""
        work.tell(failed=failed, attributes={"zenskar.outcome": outcome.value})
        return outcome


def _sync_leased(lease: Lease, on_step: Callable[[str], None]) -> Outcome:
    state = _state(lease)
    if state is None:
        return Outcome.LEASE_LOST
    work = Work(lease, integration_get(state.integration), sync_settings(), on_step)
    try:
        work.step("taken")
        try:
            _run(work, state)
            outcome = Outcome.DONE
        except NoToken as exc:
            settle_put_off(work, exc.retry_after)
            outcome = Outcome.PUT_OFF
        except IntegrationError as exc:
            settle_failure(work, exc)
            outcome = Outcome.PUT_OFF if isinstance(exc, ConfigurationError) else Outcome.FAILED
            log.info(
                "sync_failed",
                state=lease.state_id,
                integration=state.integration,
                error_class=exc.error_class,
                code=exc.code,
            )
        except (LeaseLost, OperationalError, InterfaceError):
            # Without the database nothing can be written about it; the lease runs out and the row is due again.
            raise
        except Exception as exc:
            # A defect of ours: the row shows it and is tried again by the ladder, the log keeps the trace.
            log.exception("sync_broken", state=lease.state_id, integration=state.integration)
            settle_failure(work, RetryableError(f"Internal error: {type(exc).__name__}", code="internal"))
            outcome = Outcome.FAILED
    except LeaseLost:
        log.info("sync_lease_lost", state=lease.state_id, token=lease.token)
        return Outcome.LEASE_LOST
    if outcome is not Outcome.FAILED:
        log.info("sync_ended", state=lease.state_id, integration=state.integration, outcome=outcome.value)
    return outcome


def _run(work: Work, found: SyncState) -> None:
    state: SyncState | None = found
    for _ in range(_ROUNDS):
        request = SyncRequest.objects.in_flight().filter(state=work.lease.state_id).select_related("state").first()
        if (found.account, found.livemode) != (work.integration.account, work.integration.livemode):
            # Before anything is sent: a request that was frozen for one account is never finished in another.
            account_move(work, found, request)
            state = None
        if request is not None:
            request_finish(work, request)
            state = None
        state = state or _state(work.lease)
        if state is None:
            raise LeaseLost
        result = look(work, state)
        state = None
        if result is Look.SETTLED:
            work.step("settled")
            return
        if isinstance(result, Frozen) and request_send(work, result.request, expected=result.expected):
            return
    run_in_transaction(lambda: settle(work, lease_locked(work.lease), look_again=True))


def account_move(work: Work, found: SyncState, request: SyncRequest | None) -> None:
    """The key in use is of another account or mode. What was never sent anywhere simply belongs to the new one.

    Raises:
        PermanentError: it was sent, or a request of it is in flight.
    """
    if found.remote_id is not None or request is not None:
        raise PermanentError("The record belongs to another account or mode than the key in use.", code="other_account")
    found.account, found.livemode = work.integration.account, work.integration.livemode

    def write() -> None:
        lease_locked(work.lease)
        SyncState.objects.filter(pk=found.pk).update(account=found.account, livemode=found.livemode)

    run_in_transaction(write)


def _state(lease: Lease) -> SyncState | None:
    return SyncState.objects.select_related("customer").filter(pk=lease.state_id, lease_token=lease.token).first()
