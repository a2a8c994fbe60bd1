"""Dead deliveries among the troubles that operators see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

from django.urls import reverse

from operations.troubles.rows import ids_as_numbers, rows_wanted
from operations.troubles.sources import COUNTED_AT_MOST, Trouble, TroubleGroup, TroubleSource
from outbox.deciding import deliveries_retry
from outbox.groups import FailureGroup, failure_groups
from outbox.models import Delivery
from outbox.models.delivery import DeliveryState

_COLUMNS: Final = (
    "id",
    "fingerprint",
    "state",
    "subscription_id",
    "type",
    "aggregate_type",
    "aggregate_id",
    "code",
    "message",
    "created_at",
)


class DeadDeliveries(TroubleSource):
    """Deliveries that wait for a person. Those that are retried by themselves need none yet."""

    name = "deliveries"
    title = "Dead deliveries"
    view_permission = "outbox.view_delivery"
    retry_permission = "outbox.retry_delivery"

    def counts(self) -> Mapping[str, int]:
        # By the index outbox_delivery_state_idx.
        rows = Delivery.objects.filter(state=DeliveryState.DEAD).order_by()
        return {"dead": rows[:COUNTED_AT_MOST].count()}

    def groups(self, *, fingerprint: str | None = None) -> Sequence[TroubleGroup]:
        return [_group(group) for group in failure_groups(fingerprint=fingerprint) if group.dead]

    def troubles(
        self, *, fingerprint: str | None = None, ids: Sequence[str] | None = None, after: str = "", limit: int = 50
    ) -> Sequence[Trouble]:
        rows = rows_wanted(
            Delivery.objects.filter(state=DeliveryState.DEAD), fingerprint=fingerprint, ids=ids, after=after
        )
        # Newest first: by outbox_delivery_state_idx, or by outbox_delivery_kind for one kind.
        found = rows.values_list(*_COLUMNS)[:limit]
        return [
            Trouble(
                id=str(key),
                group=kind,
                state=state,
                about=f"{subscriber} {type_} of {aggregate_type} {aggregate_id}",
                code=code,
                message=message,
                since=created_at,
                url=reverse("admin:outbox_delivery_change", args=[key]),
            )
            for key, kind, state, subscriber, type_, aggregate_type, aggregate_id, code, message, created_at in found
        ]

    def retry(self, *, ids: Sequence[str], actor: str, reason: str) -> Sequence[str]:
        rows = Delivery.objects.filter(pk__in=ids_as_numbers(ids), state=DeliveryState.DEAD)
        numbers = rows.values_list("pk", flat=True)
        return [str(key) for key in deliveries_retry(ids=sorted(numbers), actor=actor, reason=reason)]

    def operation_for(self, fingerprint: str) -> tuple[str, dict[str, Any]] | None:
        return "outbox.replay", {"fingerprint": fingerprint}

    def list_url(self, fingerprint: str) -> str:
        # A search by fingerprint.
        return f"{reverse('admin:outbox_delivery_changelist')}?q={quote(fingerprint)}"


def _group(group: FailureGroup) -> TroubleGroup:
    return TroubleGroup(
        fingerprint=group.fingerprint,
        title=f"{group.subscriber}: {group.code}, {group.type}",
        count=group.dead,
        first_seen=group.first_seen,
        last_seen=group.last_seen,
        code=group.code,
        message=group.message,
        sample_id=str(group.delivery_id),
        hours=group.hours,
    )
