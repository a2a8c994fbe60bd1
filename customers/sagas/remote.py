"""The remote step of a saga, forwards and back, by the same means as every synchronisation.

The row of the customer in the integration is taken with its lease and token, the request in flight is finished first,
the record is fetched with no lock held, what must be sent is frozen in the transaction that decided it, and base and
link take over what was sent. The difference to an ordinary look is what the record is compared with (see
``customers.sagas.wishes``). A step may be begun again at any time: it sends what is still to be sent.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from customers.integrations import ConfigurationError, PermanentError, RateLimited, integration_get
from customers.models import Customer, Saga, SagaStep, SyncRequest, SyncState
from customers.sagas.errors import DeleteRefused, SagaWaits
from customers.sagas.lease import saga_locked
from customers.sagas.run import Run, SagaRefused
from customers.sagas.wishes import Seen, Wish, wish_back, wish_forward
from customers.sync.closing import request_resolve
from customers.sync.conf import sync_settings
from customers.sync.engine import account_move
from customers.sync.lease import Lease, LeaseLost, lease_locked, lease_take
from customers.sync.look import Look
from customers.sync.requests import request_carry_out, request_finish, request_freeze
from customers.sync.work import Work
from dbresilience.transactions import run_in_transaction

_ROUNDS: Final = 5


def remote_check(run: Run, step: SagaStep) -> None:
    """Ask whether a deletion would be refused; nothing is sent.

    Raises:
        SagaRefused: it would.
        IntegrationError, SagaWaits: it could not be asked.
    """
    _worked(run, step, lambda work: _checked(work, step))


def remote_bring(run: Run, step: SagaStep) -> None:
    """Make the integration hold what the saga wants or, when it has turned back, what it held before.

    Raises:
        SagaRefused: a rule forbids it.
        PermanentError, ConfigurationError: the integration refused it.
        RetryableError, RateLimited: nobody knows yet, or it did not get so far.
        SagaWaits: another worker has the row, or a person must look.
    """
    _worked(run, step, lambda work: _brought(run, work, step))


def _worked(run: Run, step: SagaStep, function: Callable[[Work], None]) -> None:
    config = sync_settings()
    lease = lease_take(_state(step).pk, seconds=config.lease, saga=step.saga_id)
    if lease is None:
        raise _taken()
    work = Work(lease, integration_get(step.integration), config, run.on_step)
    try:
        work.step("taken")
        function(work)
    except LeaseLost as exc:
        raise _taken() from exc
    except Exception:
        _give_back(work.lease)
        raise
    _give_back(work.lease)


def _checked(work: Work, step: SagaStep) -> None:
    seen = _fetched(work, _state(step), None, with_obstacle=work.integration.delete_policy == "refuse")
    if seen.obstacle:
        problem = DeleteRefused(seen.obstacle)
        raise SagaRefused(problem, step=step, code=problem.code, message=problem.detail)


def _brought(run: Run, work: Work, step: SagaStep) -> None:
    for _ in range(_ROUNDS):
        run.lease.renew(work.config.lease)
        state = _state(step)
        step = SagaStep.objects.select_related("saga", "request").get(pk=step.pk)
        request = SyncRequest.objects.in_flight().filter(state=state).select_related("state__saga").first()
        if (state.account, state.livemode) != (work.integration.account, work.integration.livemode):
            account_move(work, state, request)
        if request is not None:
            _finish(work, step, request)
            continue
        decided = run_in_transaction(partial(_decide, run, work, step, _look(work, step, state)))
        work.step("decided")
        if decided is Look.SETTLED:
            return
        if isinstance(decided, SyncRequest):
            _send(work, decided)
    raise SagaWaits(error_class="busy", code="moving", message="It changed with every look.", is_strike=True)


def _send(work: Work, request: SyncRequest) -> None:
    """Send for the first time; an answer that says that nothing was done leaves nothing in flight."""
    try:
        request_carry_out(work, request)
    except (ConfigurationError, RateLimited) as exc:
        request_resolve(work, request, SyncRequest.Outcome.REFUSED, error=exc)
        raise


def _finish(work: Work, step: SagaStep, request: SyncRequest) -> None:
    """What was in flight when this step began: the saga's own, of a worker that died, or an earlier change's."""
    try:
        request_finish(work, request)
    except PermanentError:
        # An earlier change that was refused says nothing about ours, and a refused request is made anew on the way
        # back, when it is the effect that counts.
        if request.pk == step.request_id and not step.saga.turned_back:
            raise


def _look(work: Work, step: SagaStep, state: SyncState) -> Seen:
    """Fetch the record, unless it is known already that nothing of it matters."""
    saga, policy = step.saga, work.integration.delete_policy
    version = Customer.objects.filter(pk=saga.customer_id).values_list("version", flat=True).first()
    match saga.action, saga.turned_back:
        case (Saga.Action.CREATE, False):
            return Seen(version)
        case (Saga.Action.UPDATE, True) if not step.took_effect:
            return Seen(version)
        case (Saga.Action.DELETE, True):
            return Seen(version)
        case (Saga.Action.DELETE, False) if policy == "unlink":
            return Seen(version)
    guarded = "refuse" if saga.action == Saga.Action.DELETE else "unlink"
    with_obstacle = saga.action != Saga.Action.UPDATE and policy in ("refuse", guarded)
    seen = _fetched(work, state, version, with_obstacle=with_obstacle)
    work.step("fetched")
    return seen


def _fetched(work: Work, state: SyncState, version: int | None, *, with_obstacle: bool) -> Seen:
    integration, remote_id = work.integration, state.remote_id
    if remote_id is None:
        return Seen(version)
    remote = work.call(lambda: integration.retrieve(remote_id=remote_id))
    obstacle = ""
    if with_obstacle and remote is not None and not remote.deleted:
        obstacle = work.call(lambda: integration.delete_obstacle(remote_id=remote_id))
    return Seen(version, remote, obstacle)


def _decide(run: Run, work: Work, step: SagaStep, seen: Seen) -> SyncRequest | Look:
    """Under the locks of saga, customer and row: the request to send, or that there is none, or to look again."""
    saga = saga_locked(run.lease)
    customer = Customer.objects.select_for_update(no_key=True).filter(pk=saga.customer_id).first()
    state = lease_locked(work.lease)
    if (customer.version if customer else None) != seen.version:
        return Look.MOVED
    step = SagaStep.objects.select_related("request").get(pk=step.pk)
    step.saga = saga
    wish = (wish_back if saga.turned_back else wish_forward)(work, step, state, customer, seen)
    if not isinstance(wish, Wish):
        return Look.SETTLED
    request = request_freeze(state, method=wish.method, body=wish.body, fields=wish.fields)
    if saga.turned_back:
        SagaStep.objects.filter(pk=step.pk).update(undo_request=request)
    else:
        SagaStep.objects.filter(pk=step.pk).update(request=request, before=wish.before)
    return request


def _state(step: SagaStep) -> SyncState:
    # Read again each time: the saga beside it may have been told of more.
    return SyncState.objects.select_related("saga").get(saga=step.saga_id, integration=step.integration)


def _give_back(lease: Lease) -> None:
    """Let the row go to the next worker of the saga; what it holds stays the saga's."""
    SyncState.objects.filter(pk=lease.state_id, lease_token=lease.token).update(lease_until=None, lease_owner="")


def _taken() -> SagaWaits:
    return SagaWaits(error_class="busy", code="row_taken", message="Another worker has the row.", wait=1.0)
