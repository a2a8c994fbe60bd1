"""``operations_run_once``: take the operations that are due, one after the other, and work on each for a while."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Final

import structlog
from django.db import Error

from operations.correlation import correlation_bound
from operations.long_actions.errors import LeaseLost
from operations.long_actions.holder import LEASE_MARGIN, Holder
from operations.long_actions.kinds import kind_named, kinds
from operations.long_actions.lease import Lease, lease_claim
from operations.models import Operation, OperationState

SLICE_SECONDS: Final = 1.0
"""After so long the next operation that is due has its turn."""

SHORTEST_RELEASE: Final = 0.3
"""A rest that is shorter is slept through by the holder."""

TROUBLE_SECONDS: Final = 2.0

SHARED_SECONDS: Final = 0.05
"""Between two looks at an operation that another worker holds."""

log = structlog.get_logger(__name__)


def operations_run_once(*, budget: float = 5.0, only: int | None = None) -> int:
    """Work on the operations that are due.

    Any number of processes may call it at once: each operation has one holder at a time. Celery's beat calls it every
    second, and so does ``manage.py relay``.

    Args:
        budget: seconds after which no further step is begun.
        only: number of the one operation to work on.

    Returns:
        Pages, items and outcomes that were dealt with; 0 when there was nothing to do.

    Raises:
        django.db.Error: the database is in trouble; what was under way is tried again by whoever comes next.
    """
    ends, done = time.monotonic() + budget, 0
    names = [kind.name for kind in kinds()]
    while names and time.monotonic() < ends:
        lease = lease_claim(kinds=names, seconds=_lease_seconds(), only=only)
        if lease is None:
            break
        done += _work(lease, ends)
    return done


def operation_run(operation_id: int, *, seconds: float) -> Operation:
    """Work on one operation until it is over or paused, together with whoever else does.

    Args:
        seconds: after which it is left to the others.

    Returns:
        The operation as it is then.
    """
    ends = time.monotonic() + seconds
    while True:
        done = operations_run_once(budget=max(0.0, ends - time.monotonic()), only=operation_id)
        operation = Operation.objects.get(pk=operation_id)
        if operation.state != OperationState.RUNNING and not operation.in_flight:
            return operation
        if time.monotonic() >= ends:
            return operation
        if not done:
            time.sleep(SHARED_SECONDS)


def _work(lease: Lease, ends: float) -> int:
    kind = kind_named(lease.kind)
    if kind is None:
        lease.release(wait=TROUBLE_SECONDS)
        return 0
    holder, done, wait = Holder(lease, kind), 0, 0.0
    ends = min(ends, time.monotonic() + SLICE_SECONDS)
    correlation = Operation.objects.values_list("correlation_id", flat=True).get(pk=lease.id)
    with correlation_bound(correlation):
        try:
            while time.monotonic() < ends:
                step = holder.step()
                done += step.done
                if step.rest is not None and (step.rest > SHORTEST_RELEASE or time.monotonic() + step.rest >= ends):
                    wait = step.rest
                    break
                time.sleep(step.rest or 0.0)
        except LeaseLost:
            # Nothing of that step was done. If the operation was only steered it is still ours to give back.
            log.info("operation_lost", operation=lease.id)
        except BaseException:
            with suppress(Error):
                lease.release(wait=TROUBLE_SECONDS)
            raise
        lease.release(wait=wait)
    if done:
        log.info("operation_worked_on", operation=lease.id, kind=lease.kind, done=done)
    return done


def _lease_seconds() -> float:
    return 1.5 * (max((kind.call_seconds for kind in kinds()), default=0.0) + LEASE_MARGIN)
