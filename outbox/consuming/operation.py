"""Bulk redrive as an operation: all dead messages that a filter matches are sent again, and followed to their end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from django.db.models import Max, QuerySet
from rest_framework.exceptions import ValidationError

from operations.long_actions.kinds import Batch, ItemsQuery, Kind, Outcome, Plan, failed, skipped, succeeded, waiting
from outbox.consuming.redriving import AT_ONCE, consumed_retry
from outbox.models import ParkedMessage, ParkedState

SAMPLE: Final = 5
CONDITIONS: Final = {"group": "consumer_group", "topic": "topic", "code": "code", "fingerprint": "fingerprint"}

# The dead ones in the order of their ids, so that those of one aggregate queue in theirs; by the primary key.
ITEMS_SQL: Final = """
SELECT id::text AS key, NULL::jsonb AS data FROM outbox_inbox_parked
 WHERE state = 'dead' AND id > %(after)s::bigint AND id <= %(upto)s
   AND (%(group)s::text IS NULL OR consumer_group = %(group)s) AND (%(topic)s::text IS NULL OR topic = %(topic)s)
   AND (%(code)s::text IS NULL OR code = %(code)s)
   AND (%(fingerprint)s::text IS NULL OR fingerprint = %(fingerprint)s)
   AND (%(ids)s::bigint[] IS NULL OR id = ANY (%(ids)s::bigint[]))
 ORDER BY id LIMIT %(limit)s
"""


class RedriveConsumed(Kind):
    """Consumed dead letters, sent again; an item succeeds when its message was handled."""

    name = "outbox.redrive"
    title = "Replay consumed dead letters"
    permission = "outbox.redrive_parkedmessage"
    transactional = True
    batch_size = 500
    before_first = "0"
    filter_keys = {
        "group": "consumer group that declared them dead",
        "topic": "without the prefix",
        "code": "of the last error",
        "fingerprint": "kind of failure",
        "ids": "numbers of messages, at most 1,000",
        "upto": "the highest number that takes part; by default the newest of now",
    }
    item_page = "admin:outbox_parkedmessage_change"
    filter_example = {"group": "shipping", "code": "unknown_order"}

    def freeze(self, given: Mapping[str, Any]) -> dict[str, Any]:
        unknown = sorted(set(given) - set(CONDITIONS) - {"upto", "ids"})
        if unknown:
            raise ValidationError({unknown[0]: ["There is no such condition."]})
        frozen: dict[str, Any] = {}
        for name in CONDITIONS:
            value = given.get(name)
            if value is None:
                continue
            if not isinstance(value, str) or not 0 < len(value) <= 150 or "\0" in value:
                raise ValidationError({name: ["A text of 1 to 150 characters."]})
            frozen[name] = value
        if (ids := given.get("ids")) is not None:
            frozen["ids"] = _numbers(ids)
        upto = given.get("upto")
        if upto is None:
            upto = ParkedMessage.objects.aggregate(newest=Max("id"))["newest"] or 0
        elif not _is_number(upto):
            raise ValidationError({"upto": ["The number of a message."]})
        return {**frozen, "upto": upto}

    def plan(self, frozen: Mapping[str, Any]) -> Plan:
        rows = _matching(frozen)
        sample = [str(key) for key in rows.order_by("id").values_list("id", flat=True)[:SAMPLE]]
        return Plan(eligible=rows.count(), sample=sample)

    def items_query(self, frozen: Mapping[str, Any]) -> ItemsQuery:
        return ItemsQuery(ITEMS_SQL, {**dict.fromkeys((*CONDITIONS, "ids")), **frozen})

    def carry_out(self, batch: Batch) -> Sequence[Outcome]:
        ids = {int(item.key): item for item in batch.items}
        retried = set(consumed_retry(ids=list(ids), actor=batch.actor, reason=batch.reason))
        return [
            waiting(item) if key in retried else skipped(item, "not_dead", "It is not dead any more.")
            for key, item in ids.items()
        ]

    def follow(self, batch: Batch) -> Sequence[Outcome]:
        ids = {int(item.key): item for item in batch.items}
        found = ParkedMessage.objects.filter(pk__in=list(ids)).values_list(
            "pk", "state", "resolution", "code", "message"
        )
        states = {key: rest for key, *rest in found}
        outcomes: list[Outcome] = []
        for key, item in ids.items():
            state, resolution, code, message = states.get(key, ("gone", "", "", ""))
            if state == ParkedState.RESOLVED and resolution == "handled":
                outcomes.append(succeeded(item))
            elif state == ParkedState.DEAD:
                outcomes.append(failed(item, code, message[:500]))
            elif state not in (ParkedState.RETRYING, ParkedState.WAITING):
                outcomes.append(skipped(item, resolution or state))
        return outcomes


def _matching(frozen: Mapping[str, Any]) -> QuerySet[ParkedMessage]:
    rows = ParkedMessage.objects.filter(state=ParkedState.DEAD, id__lte=frozen["upto"])
    if "ids" in frozen:
        rows = rows.filter(pk__in=frozen["ids"])
    return rows.filter(**{column: frozen[name] for name, column in CONDITIONS.items() if name in frozen})


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _numbers(given: Any) -> list[int]:
    if not isinstance(given, list) or not 0 < len(given) <= AT_ONCE or not all(map(_is_number, given)):
        raise ValidationError({"ids": [f"A list of 1 to {AT_ONCE} numbers of messages."]})
    return sorted(set(given))
