"""Kinds of operations that act upon a table of numbers, for tests."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from django.db import connection
from rest_framework import serializers

from operations.long_actions.kinds import (
    Batch,
    Item,
    ItemsQuery,
    Kind,
    NewItem,
    Outcome,
    Plan,
    failed,
    skipped,
    succeeded,
    waiting,
)
from operations.serializers import StrictSerializer

TABLE_SQL = """
CREATE TABLE acted (number bigint NOT NULL, attempt int NOT NULL, at timestamptz NOT NULL DEFAULT clock_timestamp());
CREATE TABLE numbers (number bigint PRIMARY KEY, odd_one_out boolean NOT NULL DEFAULT false);
"""


class NumbersFilter(StrictSerializer):
    """Numbers up to one."""

    up_to = serializers.IntegerField(min_value=0)


class Acting(Kind):
    """Writes one row for each number, in the transaction of its outcome; ``refuse`` decides what fails."""

    name = "tests.act"
    title = "Act upon numbers"
    permission = "outbox.view_delivery"
    before_first = "0"
    batch_size = 50

    def __init__(self) -> None:
        self.refuse: Callable[[Item], Outcome | None] = lambda item: None
        self.before: Callable[[Batch], None] = lambda batch: None
        self.sizes: list[int] = []

    def freeze(self, given: Mapping[str, Any]) -> dict[str, Any]:
        serializer = NumbersFilter(data=dict(given))
        serializer.is_valid(raise_exception=True)
        return dict(serializer.validated_data)

    def plan(self, frozen: Mapping[str, Any]) -> Plan:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT count(*) FILTER (WHERE NOT odd_one_out), count(*) FILTER (WHERE odd_one_out),"
                " array_agg(number::text) FILTER (WHERE number < 3) FROM numbers WHERE number <= %s",
                [frozen["up_to"]],
            )
            eligible, odd, sample = cursor.fetchone()
        return Plan(eligible=eligible, ineligible={"odd one out": odd} if odd else {}, sample=sample or [])

    def items_query(self, frozen: Mapping[str, Any]) -> ItemsQuery | None:
        return ItemsQuery(
            "SELECT number::text AS key, jsonb_build_object('n', number) AS data FROM numbers"
            " WHERE number > %(after)s::bigint AND number <= %(up_to)s AND NOT odd_one_out"
            " ORDER BY number LIMIT %(limit)s",
            {"up_to": frozen["up_to"]},
        )

    def carry_out(self, batch: Batch) -> Sequence[Outcome]:
        self.before(batch)
        self.sizes.append(len(batch.items))
        outcomes = [self.refuse(item) or succeeded(item) for item in batch.items]
        done = [item for item, outcome in zip(batch.items, outcomes, strict=True) if outcome.state == "succeeded"]
        self.write(done)
        return outcomes

    @staticmethod
    def write(items: Sequence[Item]) -> None:
        with connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO acted (number, attempt) SELECT * FROM unnest(%s::bigint[], %s::int[])",
                [[int(item.key) for item in items], [item.attempt for item in items]],
            )


class ActingOutside(Acting):
    """Outside of any transaction, and says so; its items are said by Python."""

    name = "tests.act_outside"
    transactional = False
    repeatable = True

    def items_query(self, frozen: Mapping[str, Any]) -> ItemsQuery | None:
        return None

    def items(self, frozen: Mapping[str, Any], *, after: str, limit: int) -> Sequence[NewItem]:
        first = int(after) + 1
        return [NewItem(str(n)) for n in range(first, min(first + limit, frozen["up_to"] + 1))]


class ActingOnce(ActingOutside):
    """The same, and not to be repeated."""

    name = "tests.act_once"
    repeatable = False


class HandingOver(Acting):
    """Hands its items over to somebody who is done with them when the test says so."""

    name = "tests.hand_over"
    most_waiting = 30

    def __init__(self) -> None:
        super().__init__()
        self.ends: Callable[[Item], Outcome | None] = lambda item: None

    def carry_out(self, batch: Batch) -> Sequence[Outcome]:
        self.sizes.append(len(batch.items))
        return [waiting(item) for item in batch.items]

    def follow(self, batch: Batch) -> Sequence[Outcome]:
        return [outcome for item in batch.items if (outcome := self.ends(item)) is not None]


def acted() -> list[int]:
    """The numbers that were acted upon, in order, as often as they were."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT number FROM acted ORDER BY number")
        return [row[0] for row in cursor.fetchall()]


def numbers_make(count: int, *, odd: Sequence[int] = ()) -> None:
    """Numbers from 1 to ``count``; those in ``odd`` are not eligible."""
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO numbers SELECT n, n = ANY (%s) FROM generate_series(1, %s) n", [list(odd), count])


def refusing(*keys: int) -> Callable[[Item], Outcome | None]:
    """Fail these numbers."""
    return lambda item: failed(item, "refused", f"no {item.key} today") if int(item.key) in keys else None


def skipping(*keys: int) -> Callable[[Item], Outcome | None]:
    """Skip these numbers."""
    return lambda item: skipped(item, "already_done") if int(item.key) in keys else None


class Held:
    """Lets a batch wait until the test lets it go on."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.go_on = threading.Event()

    def __call__(self, batch: Batch) -> None:
        self.reached.set()
        assert self.go_on.wait(60)
