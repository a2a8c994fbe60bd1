"""What this app itself finds wrong: the database's alerts, troubles that nobody snoozed, operations that stopped."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

from django.db.models import Q
from django.utils import timezone

from dbresilience.monitor.health import database_health
from operations.alerts.sources import Condition, register
from operations.models import AlertLevel, Operation, OperationState
from operations.troubles.services import troubles_groups
from operations.troubles.sources import COUNTED_AT_MOST, sources


def database() -> Iterator[Condition]:
    """The monitor's alerts."""
    for alert in database_health()["alerts"]:
        level = AlertLevel.CRITICAL if alert["level"] == "critical" else AlertLevel.WARNING
        yield Condition(key=alert["code"], level=level, title=f"Database: {alert['code']}", message=alert["message"])


def troubles() -> Iterator[Condition]:
    """Each kind of trouble that nobody has put off. Messages of errors stay in the console: they may name people."""
    now = timezone.now()
    for one in troubles_groups(sources()):
        if one.is_snoozed(now):
            continue
        many = f"{COUNTED_AT_MOST:,} or more" if one.group.count >= COUNTED_AT_MOST else f"{one.group.count:,}"
        yield Condition(
            key=f"{one.source.name}:{one.group.fingerprint}"[:120],
            level=AlertLevel.WARNING,
            title=f"{one.source.title}: {one.group.title}",
            message=f"{many}, the first one since {one.group.first_seen:%Y-%m-%d %H:%M} UTC.",
        )


def operations() -> Iterator[Condition]:
    """Operations that failed lately, or that stopped by themselves and wait for a person."""
    lately = timezone.now() - dt.timedelta(days=1)
    stopped = Q(state=OperationState.PAUSED) & ~Q(note="")
    failed = Q(state=OperationState.FAILED, finished_at__gt=lately)
    for operation in Operation.objects.filter(stopped | failed).order_by("-pk")[:100]:
        yield Condition(
            key=str(operation.pk),
            level=AlertLevel.WARNING,
            title=f"Operation {operation.pk} is {operation.state}",
            message=operation.note,
        )


def register_own() -> None:
    """Have all three checked."""
    register("database", database)
    register("troubles", troubles)
    register("operations", operations)
