"""Replay: computes anew what a range of the log touched, or one aggregate, as an operation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

from django.db import connection
from rest_framework import serializers
from rest_framework.exceptions import ValidationError

from dbresilience.transactions import run_in_transaction
from operations.errors import ProblemError
from operations.long_actions.kinds import Batch, Item, Kind, NewItem, Outcome, Plan, failed, skipped, succeeded, waiting
from operations.long_actions.planning import Pace, operation_create
from operations.long_actions.steering import operation_start
from operations.models import Operation
from operations.scopes import Scope
from operations.serializers import StrictSerializer
from outbox.events import NAME_LENGTH
from outbox.ordered import ordered_read
from outbox.subscriptions import HEAD_SQL
from projections.builds import LOCK_KEY
from projections.errors import UnknownProjection
from projections.models import Build, BuildState
from projections.projection import Projection
from projections.recomputing import Recomputed, aggregates_recompute
from projections.registry import projection_named

POSITIONS: Final = 500
"""Positions of the log in one item."""

# Of the last events of aggregates in one item: those that have a later one in the range, whose item will do them.
LATER_SQL: Final = """
SELECT k.aggregate_type, k.aggregate_id
  FROM unnest(%(types)s::text[], %(ids)s::text[], %(sequences)s::bigint[]) AS k (aggregate_type, aggregate_id, sequence)
 CROSS JOIN LATERAL (SELECT id FROM outbox_event e
                      WHERE e.aggregate_type = k.aggregate_type AND e.aggregate_id = k.aggregate_id
                        AND e.sequence > k.sequence AND e.topic = ANY (%(topics)s::text[])
                      ORDER BY e.sequence LIMIT 1) AS n
  JOIN outbox_log l ON l.event_id = n.id
 WHERE l.position <= %(upto)s
"""


class ReplayRunning(ProblemError):
    """A replay of this projection is under way. Wait for it, or cancel it."""

    status = 409
    code = "replay_running"
    title = "Replay under way"


class ReplayFilter(StrictSerializer):
    """What is to be replayed."""

    projection = serializers.CharField(max_length=100)
    from_sequence = serializers.IntegerField(min_value=0, max_value=2**62, allow_null=True, default=None)
    to_sequence = serializers.IntegerField(min_value=0, max_value=2**62, allow_null=True, default=None)
    aggregate_type = serializers.CharField(max_length=100, required=False, allow_blank=True, default="")
    aggregate_id = serializers.CharField(max_length=NAME_LENGTH, required=False, allow_blank=True, default="")


class ReplayKind(Kind):
    """Replays of a projection. Positions up to the checkpoint are computed anew, those beyond it are waited for."""

    name = "projections.replay"
    title = "Compute rows of a read model anew from a range of the log"
    permission = "projections.replay_build"
    scope = Scope.OPERATIONS_WRITE
    batch_size: ClassVar[int] = 10
    filter_keys = {
        "projection": "name of the read model; always",
        "from_sequence": "first position of the log; without it, after the checkpoint",
        "to_sequence": "last position of the log; without it, its end now",
        "aggregate_type": "only what is about this kind, together with aggregate_id",
        "aggregate_id": "only what is about this one",
    }
    filter_example = {"projection": "customer_directory", "from_sequence": 1}

    def freeze(self, given: Mapping[str, Any]) -> dict[str, Any]:
        asked = ReplayFilter(data=given)
        asked.is_valid(raise_exception=True)
        values: dict[str, Any] = asked.validated_data
        try:
            projection = projection_named(values["projection"])
        except UnknownProjection as exc:
            raise ValidationError({"projection": [str(exc)]}) from exc
        build = Build.objects.filter(projection=projection.name, state=BuildState.LIVE).first()
        if build is None:
            raise ValidationError({"projection": ["Nothing of it has been built yet."]})
        if bool(values["aggregate_type"]) != bool(values["aggregate_id"]):
            raise ValidationError({"aggregate_id": ["Name the type and the id, or neither."]})
        head = _head()
        # Without a beginning it begins after the checkpoint.
        begin = build.cursor + 1 if values["from_sequence"] is None else values["from_sequence"]
        end = head if values["to_sequence"] is None else values["to_sequence"]
        if end > head:
            raise ValidationError({"to_sequence": [f"The log ends at {head}."]})
        if values["from_sequence"] is not None and begin > max(end, 1):
            raise ValidationError({"from_sequence": ["The range is backwards, or begins beyond the end of the log."]})
        self._require_keyed(projection, build, begin, values["aggregate_type"])
        return {**values, "from_sequence": begin, "to_sequence": end, "build": build.pk}

    def plan(self, frozen: Mapping[str, Any]) -> Plan:
        count = -(-(frozen["to_sequence"] - frozen["from_sequence"] + 1) // POSITIONS)
        if frozen["aggregate_id"]:
            count = 1
        items = self.items(frozen, after="", limit=3)
        return Plan(eligible=max(0, count), sample=[item.key for item in items])

    def items(self, frozen: Mapping[str, Any], *, after: str, limit: int) -> Sequence[NewItem]:
        if frozen["aggregate_id"]:
            aggregate = [frozen["aggregate_type"], frozen["aggregate_id"]]
            return [] if after else [NewItem(f"{aggregate[0]} {aggregate[1]}"[:255], {"aggregate": aggregate})]
        first = frozen["from_sequence"] if not after else int(after.partition("-")[2]) + 1
        found: list[NewItem] = []
        while first <= frozen["to_sequence"] and len(found) < limit:
            last = min(first + POSITIONS - 1, frozen["to_sequence"])
            # Filled with zeros: keys sort like their positions.
            found.append(NewItem(f"{first:019d}-{last:019d}", {"from": first, "to": last}))
            first = last + 1
        return found

    def carry_out(self, batch: Batch) -> Sequence[Outcome]:
        build = Build.objects.select_for_update().get(pk=batch.filter["build"])
        if build.state == BuildState.RETIRED:
            return [skipped(item, "build_retired", "Its tables are gone.") for item in batch.items]
        projection = projection_named(build.projection, build.version)
        return [self._carry_out(projection, build, item, batch.filter["to_sequence"]) for item in batch.items]

    def follow(self, batch: Batch) -> Sequence[Outcome]:
        build = Build.objects.filter(pk=batch.filter["build"]).first()
        if build is None or build.state == BuildState.RETIRED:
            return [skipped(item, "build_retired", "Its tables are gone.") for item in batch.items]
        return [succeeded(item, "applied") for item in batch.items if item.data["to"] <= build.cursor]

    def _carry_out(self, projection: Projection, build: Build, item: Item, upto: int) -> Outcome:
        if "aggregate" in item.data:
            aggregates = {tuple(item.data["aggregate"])}
        elif item.data["from"] > build.cursor:
            return waiting(item)
        else:
            # What is beyond the checkpoint is applied anyway, and no item computes it anew.
            end = min(upto, build.cursor)
            aggregates = _touched(projection, item.data["from"], min(item.data["to"], end), end)
        # Whoever names one aggregate means its rows as well; a range means what is in it by chance.
        found = aggregates_recompute(projection, build, aggregates, keeps_put_right="aggregate" not in item.data)
        counts = {what: sum(one is what for one in found.values()) for what in Recomputed}
        text = ", ".join(f"{count} {what.value}" for what, count in counts.items() if count) or "nothing to do"
        if counts[Recomputed.FAILED] or counts[Recomputed.GONE]:
            return failed(item, "not_computable", text)
        return succeeded(item, text)

    @staticmethod
    def _require_keyed(projection: Projection, build: Build, begin: int, aggregate_type: str) -> None:
        if projection.keyed_by is None and (begin <= build.cursor or aggregate_type):
            raise ValidationError(
                {
                    "from_sequence": [
                        f"{projection.name} adds up over events; a replay would count them twice. Rebuild it instead."
                    ]
                }
            )
        if aggregate_type and aggregate_type != projection.keyed_by:
            told = f"Each row of {projection.name} belongs to one {projection.keyed_by}."
            raise ValidationError({"aggregate_type": [told]})


def replay_start(
    *,
    name: str,
    actor: str,
    from_sequence: int | None = None,
    to_sequence: int | None = None,
    aggregate: tuple[str, str] | None = None,
    rate: float | None = None,
    reason: str = "",
) -> Operation:
    """Begin a replay; one of a projection at a time.

    Args:
        name: of the projection.
        actor: who.
        from_sequence: first position; None begins after the checkpoint.
        to_sequence: last position; None ends at the head.
        aggregate: type and id of the only aggregate; None replays all that the range touched.
        rate: items (of 500 positions) a second at most.
        reason: why.

    Raises:
        ReplayRunning: another one is under way.
        ValidationError: no such projection, or no such range of it, by field under ``filter``.
    """
    wanted: dict[str, Any] = {"projection": name, "from_sequence": from_sequence, "to_sequence": to_sequence}
    if aggregate is not None:
        wanted |= {"aggregate_type": aggregate[0], "aggregate_id": aggregate[1]}

    def begin() -> Operation:
        # Two who ask at once take turns, and the second one sees the first one's operation.
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK_KEY + 2])
        if Operation.objects.open().filter(kind=ReplayKind.name, filter__projection=name).exists():
            raise ReplayRunning
        operation = operation_create(
            kind=ReplayKind.name,
            filter=wanted,
            reason=reason or f"Replay of {name}",
            actor=actor,
            pace=Pace(rate=rate),
        )
        return operation_start(operation_id=operation.pk, actor=actor)

    return run_in_transaction(begin)


def _touched(projection: Projection, first: int, last: int, upto: int) -> set[tuple[str, str]]:
    """The aggregates whose last event of the range is in this part of it."""
    found: dict[tuple[str, str], int] = {}
    after = first - 1
    while after < last:
        read = ordered_read(after=after, limit=POSITIONS, topics=projection.topics, upto=last)
        if not read.places:
            break
        found |= {event.aggregate: event.sequence for event in read.events}
        after = read.reached
    found = {one: sequence for one, sequence in found.items() if one[0] == projection.keyed_by}
    ordered = sorted(found)
    with connection.cursor() as cursor:
        values: dict[str, Any] = {
            "types": [one[0] for one in ordered],
            "ids": [one[1] for one in ordered],
            "sequences": [found[one] for one in ordered],
            "upto": upto,
            "topics": sorted(projection.topics),
        }
        cursor.execute(LATER_SQL, values)
        return set(found) - {(row[0], row[1]) for row in cursor.fetchall()}


def _head() -> int:
    with connection.cursor() as cursor:
        cursor.execute(HEAD_SQL)
        return int(cursor.fetchone()[0])
