"""What is due is looked up by an index, whatever waits for people or for later."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection, transaction

from outbox.consuming import dead_letters, retrying
from outbox.deciding import deliveries_retry
from outbox.detours import DUE_SQL, START_SQL, detours_are_due
from outbox.errors import ErrorClass
from outbox.models import Delivery, Detour
from outbox.pruning import DELIVERIES_SQL, INBOX_SQL, PARKED_SQL
from outbox.relay import relay_until_idle
from tests.outbox.collecting import Collector, refusing
from tests.outbox.conftest import publish_all

pytestmark = [pytest.mark.feature("H2", "D9"), pytest.mark.django_db]

OF_LANES: dict[str, Any] = {"name": "kafka", "lanes": [1, 2], "epochs": [1, 1], "most": 500, "seconds": 30}
OF_GROUP: dict[str, Any] = {"group": "shipping", "topics": ["orders"], "seconds": 30, "most": 100}
OLD: dict[str, Any] = {"days": 30, "batch": 100}


@pytest.mark.parametrize(
    ("statement", "values", "column"),
    [
        (DUE_SQL, OF_LANES, "due"),
        (START_SQL, OF_LANES, "due"),
        (retrying.CLAIM_SQL, OF_GROUP, "next_attempt_at"),
        (dead_letters.CLAIM_SQL, OF_GROUP, "dead_letter_due"),
        (DELIVERIES_SQL, OLD, "resolved_at"),
        (INBOX_SQL, OLD, "handled_at"),
        (PARKED_SQL, OLD, "resolved_at"),
    ],
)
def test_the_moment_is_a_condition_of_the_index(statement: str, values: dict[str, Any], column: str) -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off")
        cursor.execute(f"EXPLAIN {statement}", values)
        plan = [line.strip() for (line,) in cursor.fetchall()]

    conditions = [line for line in plan if line.startswith("Index Cond") and column in line]
    assert conditions, "\n".join(plan)
    assert not [line for line in plan if "clock_timestamp" in line and line.startswith(("Filter", "Index Cond"))]


@pytest.mark.django_db(transaction=True)
def test_what_waits_for_a_person_is_not_due_until_it_decides(collector: Collector) -> None:
    collector.refuse = refusing("bad", error_class=ErrorClass.PERMANENT)
    publish_all("bad", "bad")
    relay_until_idle()
    lanes = set(Detour.objects.values_list("lane", flat=True))
    before = detours_are_due("collector", lanes)

    deliveries_retry(ids=[Delivery.objects.get().pk], actor="user:ann")

    assert lanes
    assert not before
    assert detours_are_due("collector", lanes)
    assert not detours_are_due("collector", {lane + 1 for lane in lanes})
