"""What read models know of the life of things: where each event stands with what readers see, and what failed."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from django.db import connection
from django.urls import reverse

from operations.life.sources import Entry, LifeSource, Name, Thread, Told, first_of
from operations.overview import Tone
from outbox.life import EVENT, LivedEvent, events_of
from projections.access import SEE_DETAIL, may
from projections.documents import REDACTED
from projections.models import BuildState, Failure, FailureState
from projections.registry import projection_named, projection_names

TONES: Final[dict[str, Tone]] = {
    "applied": "good",
    "pending": "plain",
    "blocked": "warn",
    "failed": "bad",
    "passed over": "plain",
}

# Where events stand with the builds that readers see: each by its primary key, its place by the index of the log's
# partitions on event_id, and the moment by projections_mark_uniq, as the first mark at or past the place.
STANDING_SQL: Final = """
SELECT e.id, b.projection,
       CASE WHEN l.position IS NULL OR l.position > b.cursor THEN 'pending'
            WHEN f.id IS NOT NULL THEN 'failed'
            WHEN d.id IS NOT NULL AND e.sequence >= d.next_sequence THEN 'blocked'
            WHEN EXISTS (SELECT FROM projections_failure s
                          WHERE s.event_id = e.id AND s.build_id = b.id AND s.state = 'resolved'
                            AND s.strategy IN ('skip', 'manual_fix', 'compensate')) THEN 'passed over'
            ELSE 'applied' END,
       (SELECT m.passed_at FROM projections_mark m WHERE m.build_id = b.id AND m.position >= l.position
         ORDER BY m.position LIMIT 1)
  FROM outbox_event e
  JOIN unnest(%(projections)s::text[], %(topics)s::text[]) t (projection, topic) ON t.topic = e.topic
  JOIN projections_build b ON b.projection = t.projection AND b.state = 'live'
  LEFT JOIN outbox_log l ON l.event_id = e.id
  LEFT JOIN projections_detour d ON d.build_id = b.id AND d.aggregate_type = e.aggregate_type
       AND d.aggregate_id = e.aggregate_id
  LEFT JOIN projections_failure f ON f.event_id = e.id AND f.build_id = b.id AND f.state IN ('retrying', 'manual')
 WHERE e.id = ANY (%(events)s::bigint[])
 ORDER BY e.id, b.projection
"""


class ReadModelsLife(LifeSource):
    """Events on their way into read models."""

    name = "read_models"
    title = "Read models"
    permission = "projections.view_build"
    order = 40

    def tell(self, thread: Thread) -> Told:
        events = {event.id: event for event in events_of(thread)[0]}
        pairs = [(name, topic) for name in projection_names() for topic in sorted(projection_named(name).topics)]
        values: dict[str, Any] = {
            "events": list(events),
            "projections": [name for name, _ in pairs],
            "topics": [topic for _, topic in pairs],
        }
        with connection.cursor() as cursor:
            cursor.execute(STANDING_SQL, values)
            rows = cursor.fetchall()
        # By projections_failure_event.
        failures, more = first_of(
            Failure.objects.filter(event_id__in=events).select_related("build").defer("traceback"), "event_id"
        )
        thread.parts.update(Name("projection_failure", str(one.pk)) for one in failures)
        with_detail = may(thread.request, SEE_DETAIL)
        resolved = {
            (one.event_id, one.projection): one.resolved_at
            for one in failures
            if one.state == FailureState.RESOLVED and one.resolved_at is not None
        }
        entries = [
            _standing(events[event], name, state, resolved.get((event, name)) or at) for event, name, state, at in rows
        ]
        return Told(
            [*entries, *(_failure(events[one.event_id], one, with_detail=with_detail) for one in failures)], more=more
        )


def _standing(event: LivedEvent, projection: str, state: str, at: datetime | None) -> Entry:
    is_over = state in ("applied", "passed over")
    return Entry(
        kind="read_model",
        id=f"{event.id}/{projection}",
        what=f"{event.type} in {projection}",
        at=(at or event.created_at) if is_over else None,
        state=state,
        tone=TONES[state],
        text=_how_exact(at) if state == "applied" else "",
        url=reverse("console-projection", args=[projection]),
        about=[Name(EVENT, str(event.id))],
    )


def _how_exact(at: datetime | None) -> str:
    return "when is not kept any more" if at is None else "by then at the latest"


def _failure(event: LivedEvent, one: Failure, *, with_detail: bool) -> Entry:
    message = one.message if with_detail else REDACTED
    again = f"again at {one.next_retry_at:%Y-%m-%d %H:%M:%S}" if one.next_retry_at else ""
    decided = f"{one.strategy} by {one.resolved_by}" if one.strategy else ""
    # What failed in a build that is gone says nothing of what readers see.
    is_over, is_gone = one.state == FailureState.RESOLVED, one.build.state == BuildState.RETIRED
    return Entry(
        kind="projection_failure",
        id=str(one.pk),
        what=f"{event.type} could not be applied to {one.projection}",
        at=one.first_failed_at,
        ended_at=one.resolved_at,
        state="gone" if is_gone else one.state,
        tone="plain" if is_gone else "good" if is_over else "bad" if one.state == FailureState.MANUAL else "warn",
        attempts=one.attempts,
        text="; ".join(
            filter(None, (one.code, message.rstrip("."), again, decided, one.resolution if is_gone else ""))
        ),
        url=reverse("admin:projections_failure_change", args=[one.pk]),
        about=[Name(EVENT, str(event.id))],
    )
