"""Consumed dead letters among the troubles that operators see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from django.urls import reverse

from operations.troubles.rows import ids_as_numbers, rows_wanted
from operations.troubles.sources import COUNTED_AT_MOST, Trouble, TroubleGroup, TroubleSource
from outbox.consuming.kinds import dead_kinds
from outbox.consuming.redriving import consumed_retry
from outbox.models import ParkedMessage, ParkedState

_COLUMNS: Final = (
    "id",
    "fingerprint",
    "state",
    "consumer_group",
    "topic",
    "type",
    "event_id",
    "code",
    "message",
    "created_at",
)


class ConsumedDeadLetters(TroubleSource):
    """Messages of Kafka that their handler could not handle."""

    name = "consumed"
    title = "Consumed dead letters"
    view_permission = "outbox.view_parkedmessage"
    retry_permission = "outbox.redrive_parkedmessage"

    def counts(self) -> Mapping[str, int]:
        # By outbox_parked_state_idx.
        return {"dead": ParkedMessage.objects.filter(state=ParkedState.DEAD).order_by()[:COUNTED_AT_MOST].count()}

    def groups(self, *, fingerprint: str | None = None) -> Sequence[TroubleGroup]:
        return [
            TroubleGroup(
                fingerprint=kind.fingerprint,
                title=f"{kind.group}: {kind.code}, {kind.type or kind.topic}",
                count=kind.count,
                first_seen=kind.first_seen,
                last_seen=kind.last_seen,
                code=kind.code,
                message=kind.message,
                sample_id=str(kind.sample_id),
            )
            for kind in dead_kinds(fingerprint=fingerprint)
        ]

    def troubles(
        self, *, fingerprint: str | None = None, ids: Sequence[str] | None = None, after: str = "", limit: int = 50
    ) -> Sequence[Trouble]:
        rows = rows_wanted(
            ParkedMessage.objects.filter(state=ParkedState.DEAD), fingerprint=fingerprint, ids=ids, after=after
        )
        # Newest first: by outbox_parked_state_idx, or by outbox_parked_kind for one kind.
        found = rows.values_list(*_COLUMNS)[:limit]
        return [
            Trouble(
                id=str(key),
                group=kind,
                state=state,
                about=f"{group}: {type_ or 'a message'} {event_id} of {topic}",
                code=code,
                message=message,
                since=created_at,
                url=reverse("admin:outbox_parkedmessage_change", args=[key]),
            )
            for key, kind, state, group, topic, type_, event_id, code, message, created_at in found
        ]

    def retry(self, *, ids: Sequence[str], actor: str, reason: str) -> Sequence[str]:
        return [str(key) for key in consumed_retry(ids=ids_as_numbers(ids), actor=actor, reason=reason)]

    def operation_for(self, fingerprint: str) -> tuple[str, dict[str, Any]] | None:
        return "outbox.redrive", {"fingerprint": fingerprint}
