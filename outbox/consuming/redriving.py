"""Decisions of people about dead messages: send them again, give them up."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

from django.db.models import QuerySet
from django.db.models.functions import Now

from dbresilience.transactions import run_in_transaction
from operations.audit import audit_record
from outbox.consuming.handlers import Outcome
from outbox.consuming.inbox import Key, aggregates_lock, sequences_advance
from outbox.consuming.messages import envelope_read
from outbox.consuming.parking import record_of
from outbox.consuming.retrying import queue_advance
from outbox.models import InboxMessage, ParkedMessage, ParkedResolution, ParkedState

AT_ONCE = 1_000


def consumed_retry(*, ids: Sequence[int], actor: str, reason: str) -> list[int]:
    """Send dead messages again, with all their attempts; those that were dead.

    They queue in their aggregates, the earlier ones first, and are handled although later ones were; handlers see that
    they are ``late``.

    Args:
        ids: at most ``AT_ONCE``.
        actor: who.
        reason: why.
    """
    return run_in_transaction(lambda: _retry(ids, actor, reason))


def consumed_discard(*, ids: Sequence[int], actor: str, reason: str) -> list[int]:
    """Give dead messages up; those that were dead. Their letters stay in Kafka; what waited behind them goes on.

    Args:
        ids: at most ``AT_ONCE``.
        actor: who.
        reason: why.
    """
    return run_in_transaction(lambda: _discard(ids, actor, reason))


def queues_lock(parked: Iterable[ParkedMessage]) -> list[tuple[str, str, list[Key]]]:
    """Lock the aggregates of messages, for the rest of the transaction; by group and topic, in one order everywhere."""
    places = sorted({(one.consumer_group, one.topic, one.aggregate_type, one.aggregate_id) for one in parked})
    queues: list[tuple[str, str, list[Key]]] = []
    for (group, topic), rows in groupby(places, key=lambda place: place[:2]):
        keys = [row[2:] for row in rows]
        aggregates_lock(group=group, topic=topic, keys=keys)
        queues.append((group, topic, keys))
    return queues


def queues_advance(queues: Iterable[tuple[str, str, list[Key]]]) -> None:
    """Let the first of each aggregate be tried."""
    for group, topic, keys in queues:
        for key in keys:
            queue_advance(group=group, topic=topic, key=key)


def _retry(ids: Sequence[int], actor: str, reason: str) -> list[int]:
    # The lock of an aggregate comes before those of its messages, here as in the worker.
    queues = queues_lock(_dead(ids).only("consumer_group", "topic", "aggregate_type", "aggregate_id"))
    again = list(_dead(ids).select_for_update().order_by("id").values_list("id", flat=True))
    ParkedMessage.objects.filter(pk__in=again).update(
        state=ParkedState.WAITING, blocks=False, attempts=0, redriven=True, dead_letter_due=None, updated_at=Now()
    )
    queues_advance(queues)
    _audit("consumed.retried", again, actor, reason)
    return again


def _discard(ids: Sequence[int], actor: str, reason: str) -> list[int]:
    queues = queues_lock(_dead(ids).only("consumer_group", "topic", "aggregate_type", "aggregate_id"))
    found = list(_dead(ids).select_for_update().order_by("id").defer("value", "traceback"))
    given_up = [one.pk for one in found]
    values: dict[str, Any] = {"resolved_at": Now(), "updated_at": Now()}
    ParkedMessage.objects.filter(pk__in=given_up).update(
        state=ParkedState.RESOLVED,
        resolution=ParkedResolution.DISCARDED,
        blocks=False,
        resolved_by=actor[:200],
        resolved_reason=reason[:2_000],
        **values,
    )
    for group, rows in groupby(sorted(found, key=_group), key=_group):
        names = [one.event_id for one in rows]
        InboxMessage.objects.filter(consumer_group=group, event_id__in=names).update(outcome=Outcome.IGNORED)
    for parked in found:
        if parked.blocks:
            _pass(parked)
    queues_advance(queues)
    _audit("consumed.discarded", given_up, actor, reason)
    return given_up


def _pass(parked: ParkedMessage) -> None:
    """Note that the aggregate is past a message that held it back, so that a repetition of it is known as one."""
    # The headers tell it; megabytes of value are not fetched for that.
    parked.value = None
    sequence = envelope_read(record_of(parked, prefix="")).sequence
    if sequence is not None:
        key = (parked.aggregate_type, parked.aggregate_id)
        sequences_advance(group=parked.consumer_group, topic=parked.topic, sequences={key: sequence})


def _group(parked: ParkedMessage) -> str:
    return parked.consumer_group


def _dead(ids: Sequence[int]) -> QuerySet[ParkedMessage]:
    return ParkedMessage.objects.filter(pk__in=list(ids)[:AT_ONCE], state=ParkedState.DEAD)


def _audit(action: str, ids: Sequence[int], actor: str, reason: str) -> None:
    if ids:
        detail = {"count": len(ids), "ids": list(ids[:100]), "reason": reason[:2_000]}
        target = f"consumed:{ids[0]}" if len(ids) == 1 else ""
        audit_record(actor=actor, action=action, target=target, detail=detail)
