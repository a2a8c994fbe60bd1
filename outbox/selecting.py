"""Which deliveries an action is about: a filter that can be frozen, and what it matches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import Any, Final

from django.db import connection

from outbox.errors import ErrorClass, InvalidFilter

COUNTED_AT_MOST: Final = 1_000_000
LONGEST: Final = 255
"""Characters of a text; no column that is compared is wider."""

# Open deliveries that a filter matches. By state and id (outbox_delivery_state_idx), or by fingerprint
# (outbox_delivery_kind); whatever else is asked for is looked at on those rows alone, and what is open is what waits
# for people. ``behind``: an earlier event of its aggregate is what waits, and this one's turn comes after it.
_MATCH: Final = """
  FROM outbox_delivery d
  LEFT JOIN outbox_detour t ON t.aggregate_type = d.aggregate_type AND t.aggregate_id = d.aggregate_id
       AND t.subscription_id = d.subscription_id
 WHERE d.state = ANY (%(states)s::text[]) AND d.id > %(after)s::bigint
   AND (%(upto)s::bigint IS NULL OR d.id <= %(upto)s)
   AND (%(ids)s::bigint[] IS NULL OR d.id = ANY (%(ids)s::bigint[]))
   AND (%(events)s::bigint[] IS NULL OR d.event_id = ANY (%(events)s::bigint[]))
   AND (%(subscriber)s::text IS NULL OR d.subscription_id = %(subscriber)s)
   AND (%(topic)s::text IS NULL OR d.topic = %(topic)s)
   AND (%(type)s::text IS NULL OR d.type = %(type)s)
   AND (%(aggregate_type)s::text IS NULL OR d.aggregate_type = %(aggregate_type)s)
   AND (%(aggregate_id)s::text IS NULL OR d.aggregate_id = %(aggregate_id)s)
   AND (%(error_class)s::text IS NULL OR d.error_class = %(error_class)s)
   AND (%(code)s::text IS NULL OR d.code = %(code)s)
   AND (%(fingerprint)s::text IS NULL OR (d.fingerprint = %(fingerprint)s AND d.state IN ('retrying', 'dead')))
   AND (%(since)s::timestamptz IS NULL OR d.created_at >= %(since)s)
   AND (%(until)s::timestamptz IS NULL OR d.created_at < %(until)s)
"""
# By whether the aggregate waits at an earlier event, and by state.
COUNT_SQL: Final = f"""
SELECT state, behind, active, count(*), max(id)
  FROM (SELECT d.id, d.state, COALESCE(t.next_sequence < d.sequence, false) AS behind,
               (SELECT s.active FROM outbox_subscription s WHERE s.name = d.subscription_id) AS active
        {_MATCH} LIMIT %(most)s) m
 GROUP BY 1, 2, 3
"""  # noqa: S608 - constants only
CHOOSE_SQL: Final = f"""
SELECT d.id {_MATCH} AND COALESCE(t.next_sequence >= d.sequence, true)
   AND EXISTS (SELECT 1 FROM outbox_subscription s WHERE s.name = d.subscription_id AND s.active)
 ORDER BY d.id LIMIT %(most)s
"""  # noqa: S608 - constants only
# The same as the items of an operation (see ``outbox.replays``).
ITEMS_SQL: Final = f"""
SELECT d.id::text AS key, NULL::jsonb AS data {_MATCH} AND COALESCE(t.next_sequence >= d.sequence, true)
   AND EXISTS (SELECT 1 FROM outbox_subscription s WHERE s.name = d.subscription_id AND s.active)
 ORDER BY d.id LIMIT %(limit)s
"""  # noqa: S608 - constants only


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryFilter:
    """Which open deliveries; every condition that is given must hold.

    Attributes:
        ids: of deliveries.
        events: ids of events.
        subscriber, topic, type, aggregate_type, aggregate_id, error_class, code, fingerprint: exactly this.
        since, until: when it first failed; ``until`` is left out itself.
        upto: the highest id of a delivery; freezes the filter, since later failures have higher ones.
        states: of the delivery.
    """

    ids: tuple[int, ...] | None = None
    events: tuple[int, ...] | None = None
    subscriber: str | None = None
    topic: str | None = None
    type: str | None = None
    aggregate_type: str | None = None
    aggregate_id: str | None = None
    error_class: str | None = None
    code: str | None = None
    fingerprint: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    upto: int | None = None
    states: tuple[str, ...] = ("dead",)

    def __post_init__(self) -> None:
        if self.error_class is not None and self.error_class not in ErrorClass.values:
            raise InvalidFilter(f"error_class: one of {', '.join(ErrorClass.values)}")
        if not self.states or not {"dead", "retrying"}.issuperset(self.states):
            raise InvalidFilter("states: dead, retrying")
        for name in ("since", "until"):
            value = getattr(self, name)
            if value is not None and value.tzinfo is None:
                raise InvalidFilter(f"{name}: with its offset from UTC")
            if value is not None and not _is_in_calendar(value):
                raise InvalidFilter(f"{name}: of the years 1 to 9999 in UTC")
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, str) and ("\0" in value or not _is_text(value)):
                raise InvalidFilter(f"{field.name}: no text that could be stored")

    @property
    def is_everything(self) -> bool:
        """Whether it has no condition at all."""
        return all(value is None for name, value in asdict(self).items() if name not in ("states", "upto"))

    def as_json(self) -> dict[str, Any]:
        """The conditions that are given, for a row or an audit entry."""
        found = {name: value for name, value in asdict(self).items() if value is not None}
        return {
            name: value.astimezone(UTC).isoformat() if isinstance(value, datetime) else value
            for name, value in found.items()
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> DeliveryFilter:
        """What ``as_json`` gave.

        Raises:
            InvalidFilter: a condition does not exist or has no such value.
        """
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise InvalidFilter(f"There is no condition {unknown[0][:50]!r}.")
        given: dict[str, Any] = {}
        for name, value in values.items():
            read: Callable[[Any], Any] = _VALUES.get(name, _text)
            try:
                given[name] = None if value is None else read(value)
            except ValueError as exc:
                raise InvalidFilter(f"{name}: {exc}") from exc
        if given.get("states", ()) is None:
            raise InvalidFilter("states: dead, retrying")
        return cls(**given)


@dataclass(frozen=True, slots=True)
class DeliveryPlan:
    """What an action on a filter would do, counted up to a million.

    Attributes:
        eligible: deliveries that it would act on.
        not_eligible: why, and how many of the rest.
        upto: the highest id that was counted, which freezes the filter.
    """

    eligible: int
    not_eligible: dict[str, int]
    upto: int


def deliveries_plan(chosen: DeliveryFilter) -> DeliveryPlan:
    """Count what an action would act on, and what not and why."""
    eligible, upto, rest = 0, chosen.upto or 0, {"waits behind an earlier event": 0, "subscriber not in use": 0}
    with connection.cursor() as cursor:
        cursor.execute(COUNT_SQL, {**filter_values(chosen), "after": 0, "most": COUNTED_AT_MOST})
        for _state, behind, active, count, highest in cursor.fetchall():
            upto = max(upto, highest)
            if not active:
                rest["subscriber not in use"] += count
            elif behind:
                rest["waits behind an earlier event"] += count
            else:
                eligible += count
    return DeliveryPlan(eligible, {why: count for why, count in rest.items() if count}, upto)


def deliveries_choose(chosen: DeliveryFilter, *, most: int, after: int = 0) -> list[int]:
    """Ids of deliveries that an action may act on, in order, the next ``most`` after one."""
    with connection.cursor() as cursor:
        cursor.execute(CHOOSE_SQL, {**filter_values(chosen), "after": after, "most": most})
        return [row[0] for row in cursor.fetchall()]


def filter_values(chosen: DeliveryFilter) -> dict[str, Any]:
    """The parameters of the queries above, without ``after`` and the limit."""
    values = asdict(chosen)
    for name in ("ids", "events", "states"):
        found: Sequence[Any] | None = values[name]
        values[name] = None if found is None else list(found)
    return values


def moment_of(text: str) -> datetime:
    """A moment as ISO 8601 has it; with its offset from UTC, or without one.

    Raises:
        ValueError: it is none, or none that has a place in the calendar in UTC; the message is fit to be shown.
    """
    try:
        found = datetime.fromisoformat(text)
        return found.astimezone(UTC) if found.tzinfo else found
    except (ValueError, OverflowError) as exc:
        raise ValueError("no moment as ISO 8601 has it, of the years 1 to 9999 in UTC") from exc


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > LONGEST:
        raise ValueError(f"a text of at most {LONGEST} characters")
    return value


def _number(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**63:
        raise ValueError("a number of a row")
    return value


def _numbers(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list | tuple):
        raise ValueError("a list of numbers of rows")
    return tuple(_number(one) for one in value)


def _states(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple):
        raise ValueError("a list of states")
    return tuple(_text(one) for one in value)


def _moment(value: Any) -> datetime:
    return moment_of(_text(value))


_VALUES: Final[dict[str, Callable[[Any], Any]]] = {
    "ids": _numbers,
    "events": _numbers,
    "upto": _number,
    "states": _states,
    "since": _moment,
    "until": _moment,
}


def _is_in_calendar(value: datetime) -> bool:
    try:
        value.astimezone(UTC)
    except OverflowError:
        return False
    return True


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
