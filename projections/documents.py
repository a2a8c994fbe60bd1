"""Read models and their failures as JSON: the same for API, commands and console."""

from __future__ import annotations

from typing import Any, Final

from django.utils import timezone

from projections.health import BuildHealth, Status, builds_health, overall, projections_health
from projections.models import Failure
from projections.projection import Projection
from projections.registry import projection_named, projection_names

REDACTED: Final = "(not shown: this needs the permission to see the details of failures)"


def health_document() -> dict[str, Any]:
    """Health of all that readers see, and the worst of it."""
    found = projections_health()
    return {
        "status": overall(list(found.values())).value,
        "timestamp": timezone.now(),
        "projections": {name: one.document() if one else not_built(name) for name, one in found.items()},
    }


def not_built(name: str) -> dict[str, Any]:
    """What is told of a projection of which nothing was built."""
    return {"projection": name, "status": Status.OFFLINE.value, "build": None, "alerts": []}


def checkpoint_document(one: BuildHealth) -> dict[str, Any]:
    """Where a read model stands."""
    return {
        "projection": one.projection,
        "build": one.build,
        "last_event_id": one.last_event_id,
        "last_event_type": one.last_event_type,
        "last_event_sequence": one.last_event_sequence,
        "events_processed": one.events_processed,
        "checkpoint_at": one.checkpoint_at,
        "head": one.head,
        "lag_events": one.lag_events,
        "lag_seconds": one.lag_seconds,
    }


def status_document() -> dict[str, Any]:
    """All builds of all projections, and what each projection is made of."""
    builds = builds_health()
    found = []
    for name in projection_names():
        newest = projection_named(name)
        own = [one.document() for one in builds if one.projection == name]
        found.append({**_about(newest), "builds": own})
    live = [one for one in builds if one.state == "live"]
    missing = set(projection_names()) - {one.projection for one in live}
    status = overall([*live, *([None] if missing else [])])
    return {"status": status.value, "timestamp": timezone.now(), "projections": found}


def failure_document(failure: Failure, *, with_detail: bool) -> dict[str, Any]:
    """One failure; what the error said only for those who may see it."""
    return {
        "id": failure.pk,
        "projection": failure.projection,
        "build": failure.build_id,
        "event_id": failure.event_id,
        "event_type": failure.event_type,
        "event_sequence": failure.position,
        "aggregate_type": failure.aggregate_type,
        "aggregate_id": failure.aggregate_id,
        "aggregate_sequence": failure.sequence,
        "error_class": failure.error_class,
        "error_type": failure.code,
        "error_message": failure.message if with_detail else REDACTED,
        "error_traceback": failure.traceback if with_detail else REDACTED,
        "attempts": failure.attempts,
        "first_failed_at": failure.first_failed_at,
        "last_failed_at": failure.last_failed_at,
        "next_retry_at": failure.next_retry_at,
        "state": failure.state,
        "strategy": failure.strategy,
        "resolution": failure.resolution,
        "resolved_by": failure.resolved_by,
        "resolved_at": failure.resolved_at,
    }


def _about(projection: Projection) -> dict[str, Any]:
    return {
        "name": projection.name,
        "version": projection.version,
        "topics": sorted(projection.topics),
        "tables": [table.name for table in projection.tables],
        "keyed_by": projection.keyed_by,
        "compensations": sorted(projection.compensations),
    }
