"""What an operator can do about a failure; every decision is a row of the audit trail."""

from __future__ import annotations

from typing import Any

import structlog
from django.db import Error, connection, transaction
from django.db.models import Q
from django.db.models.functions import Now

from dbresilience.transactions import run_in_transaction
from operations.audit import audit_record
from operations.errors import FieldError, ProblemError
from outbox.failures import is_database_trouble
from outbox.models import StoredEvent
from outbox.reading import Waiting, aggregates_read
from outbox.retention import log_is_whole
from projections.failures import skips_carry
from projections.models import Build, Detour, Failure, FailureState, Strategy
from projections.models.build import FED
from projections.models.failure import ACTIVE
from projections.projection import Batch, Projection
from projections.registry import projection_named

log = structlog.get_logger(__name__)


class FailureNotFound(ProblemError):
    """There is no such failure."""

    status = 404
    code = "failure_not_found"
    title = "Not found"


class AlreadyResolved(ProblemError):
    """This failure is resolved already."""

    status = 409
    code = "already_resolved"
    title = "Already resolved"


class StrategyRefused(ProblemError):
    """This failure cannot be resolved so."""

    status = 400
    code = "strategy_refused"
    title = "Strategy refused"


class CompensationFailed(ProblemError):
    """The function that was to be called raised an error. Nothing was changed."""

    status = 409
    code = "compensation_failed"
    title = "Compensation failed"


def failure_resolve(*, failure_id: int, strategy: str, actor: str, note: str = "", compensation: str = "") -> Failure:
    """Decide what becomes of a failure. Its aggregate goes on with the runner's next round.

    Args:
        failure_id: of the failure.
        strategy: one of ``Strategy``.
        actor: who decides, for the audit trail.
        note: why; required by ``manual_fix``.
        compensation: name of a function that the projection registers; for ``compensate``, when it has several.

    Raises:
        FailureNotFound: there is none.
        AlreadyResolved: it was resolved before.
        StrategyRefused: there is no such strategy, or it lacks what it needs.
        CompensationFailed: the registered function raised.
    """
    return run_in_transaction(lambda: _resolve(failure_id, strategy, actor, note.strip(), compensation))


def _resolve(failure_id: int, strategy: str, actor: str, note: str, compensation: str) -> Failure:
    chosen = _strategy(strategy)
    found = Failure.objects.filter(pk=failure_id).values_list("build_id", flat=True).first()
    if found is None:
        raise FailureNotFound
    # The lock of the build first, as the runner takes it: whatever follows is alone with the build's rows. What is
    # skipped is skipped in the other builds as well: all are locked, in the order of their ids as for a switch.
    same = Build.objects.filter(pk=found).values("projection")
    wanted = Q(pk=found) | Q(projection__in=same, state__in=FED) if chosen is Strategy.SKIP else Q(pk=found)
    builds = {one.pk: one for one in Build.objects.select_for_update().filter(wanted).order_by("pk")}
    build = builds.pop(found)
    failure = Failure.objects.select_for_update().get(pk=failure_id)
    if failure.state not in ACTIVE or build.state not in FED:
        raise AlreadyResolved
    projection = projection_named(build.projection, build.version)
    detour = Detour.objects.get(build=build, aggregate_type=failure.aggregate_type, aggregate_id=failure.aggregate_id)
    # The last decision holds: one of a moment ago that no runner has carried out yet is forgotten.
    detour.rebuild, detour.next_sequence = False, failure.sequence
    if chosen in (Strategy.RETRY, Strategy.REBUILD_AGGREGATE):
        if chosen is Strategy.REBUILD_AGGREGATE:
            _require_keyed(projection, failure.aggregate_type)
            _require_first(projection, failure)
            detour.rebuild, detour.next_sequence = True, 1
        failure.state, failure.next_retry_at = FailureState.RETRYING, Now()
    else:
        if chosen is Strategy.MANUAL_FIX and not note:
            raise _refused("manual_fix needs a note that says what was done.", "/note")
        if chosen is Strategy.COMPENSATE:
            compensation = _compensate(projection, build, failure, compensation)
            note = f"{compensation}: {note}" if note else compensation
        detour.next_sequence = failure.sequence + 1
        failure.state, failure.next_retry_at = FailureState.RESOLVED, None
        failure.resolved_at = Now()
    failure.strategy, failure.resolution, failure.resolved_by = chosen, note, actor[:200]
    failure.save(update_fields=["state", "next_retry_at", "resolved_at", "strategy", "resolution", "resolved_by"])
    detour.due = Now()
    detour.save(update_fields=["due", "next_sequence", "rebuild"])
    for other in builds:
        skips_carry(build_id=other, projection=failure.projection, events=[failure.event_id])
    audit_record(
        actor=actor,
        action=f"projection_failure.{'retried' if failure.state == FailureState.RETRYING else 'resolved'}",
        target=f"projection_failure:{failure.pk}",
        detail={
            "projection": failure.projection,
            "strategy": chosen.value,
            "event": failure.event_id,
            "note": note[:500],
        },
    )
    failure.refresh_from_db()
    return failure


def _strategy(name: str) -> Strategy:
    if name not in Strategy.values:
        raise _refused(f"Choose one of {', '.join(Strategy.values)}.", "/compensation_strategy")
    return Strategy(name)


def _require_keyed(projection: Projection, aggregate_type: str) -> None:
    if projection.keyed_by != aggregate_type:
        raise _refused(
            f"Rows of {projection.name} do not follow from one {aggregate_type} alone; rebuild the projection instead.",
            "/compensation_strategy",
        )


def _require_first(projection: Projection, failure: Failure) -> None:
    if log_is_whole(projection.topics):
        return
    # By outbox_event_aggregate.
    first = StoredEvent.objects.filter(
        aggregate_type=failure.aggregate_type, aggregate_id=failure.aggregate_id, sequence=1
    )
    if not first.exists():
        raise _refused(
            "Retention has removed the first events of this aggregate; its rows cannot be computed from the others.",
            "/compensation_strategy",
        )


def _compensate(projection: Projection, build: Build, failure: Failure, name: str) -> str:
    """Call the registered function with the event, in the current transaction; its name."""
    known: dict[str, Any] = dict(projection.compensations)
    if not known:
        raise _refused(f"{projection.name} registers no compensation.", "/compensation_strategy")
    name = name or (next(iter(known)) if len(known) == 1 else "")
    if name not in known:
        raise _refused(f"Choose one of {', '.join(sorted(known))}.", "/compensation")
    aggregate = failure.aggregate_type, failure.aggregate_id
    read = aggregates_read([Waiting(*aggregate, failure.sequence, build.cursor)], 1, projection.topics)
    try:
        with transaction.atomic():
            known[name](Batch(read[aggregate][0], build.pk))
            # A constraint that complains later would let the operator believe that it worked.
            with connection.cursor() as cursor:
                cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
    except Exception as exc:
        if isinstance(exc, Error) and is_database_trouble(exc):
            raise
        log.warning("projection_compensation_failed", failure=failure.pk, compensation=name, exc_info=exc)
        # What it said may quote rows.
        raise CompensationFailed(f"The function {name} raised {type(exc).__name__}; nothing was changed.") from exc
    return name


def _refused(detail: str, pointer: str) -> StrategyRefused:
    return StrategyRefused(detail, errors=[FieldError(pointer=pointer, code="invalid_value", detail=detail)])
