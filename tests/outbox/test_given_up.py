"""What people skipped or replaced was not delivered, and no figure says that it was."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection, transaction
from django.test import Client
from prometheus_client.parser import text_string_to_metric_families

from operations.metrics import metrics_page
from outbox.deciding import deliveries_skip
from outbox.errors import ErrorClass
from outbox.models import Delivery, Lane, TopicFigure
from outbox.publishing import publish_many
from outbox.relay import relay_until_idle
from outbox.replacing import delivery_replace
from outbox.status import events_statuses, wait_for
from tests.operations.conftest import api, issued
from tests.outbox.collecting import Collector, refusing
from tests.outbox.conftest import new

__all__ = ["api", "issued"]
pytestmark = [pytest.mark.feature("A1", "A8", "D7", "D10"), pytest.mark.django_db(transaction=True)]


@pytest.fixture
def given_up(collector: Collector) -> list[int]:
    """Three events: one skipped, one replaced, one that went through. The edited one goes through as well."""
    collector.refuse = refusing("lost", "wrong", error_class=ErrorClass.PERMANENT)
    with transaction.atomic():
        ids = publish_many([new("lost"), new("wrong"), new("good")])
    relay_until_idle()
    collector.refuse = lambda event: None
    lost, wrong = (Delivery.objects.get(aggregate_id=name).pk for name in ("lost", "wrong"))
    deliveries_skip(ids=[lost], actor="user:ann", reason="nobody needs it")
    delivery_replace(delivery_id=wrong, payload={"n": 2}, actor="user:ann", reason="typo")
    relay_until_idle()
    return list(ids)


def test_an_event_says_what_became_of_it(given_up: list[int]) -> None:
    statuses = events_statuses(given_up)

    assert [statuses[event][0].status.value for event in given_up] == ["skipped", "replaced", "processed"]
    assert statuses[given_up[0]][0].processed_at is None
    assert wait_for(given_up[0], "collector", 0.1).value == "skipped"


def test_statistics_and_metrics_count_them_apart(given_up: list[int], api: Client) -> None:
    statistics = api.get("/api/v1/admin/outbox/statistics").json()
    text, _ = metrics_page()

    metrics: dict[str, float] = {
        sample.name: sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
        if sample.labels == {"subscriber": "collector", "topic": "customers"}
    }
    (subscriber,), (topic,) = statistics["subscribers"], statistics["topics"]
    counts: dict[str, Any] = {"processed": 2, "skipped": 1, "replaced": 1, "errors": 2}
    assert {name: subscriber[name] for name in counts} == counts
    assert {name: topic[name] for name in counts} == counts
    assert {name: statistics[f"total_{name}"] for name in counts} == counts
    assert {name: metrics[f"zenskar_outbox_{name}_total"] for name in counts} == counts
    assert sum(Lane.objects.values_list("processed", flat=True)) == 2


def test_people_with_psql_see_it_and_do_not_find_it_among_what_waits(given_up: list[int]) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT status, is_processed, processed_at IS NULL FROM outbox_events ORDER BY id")
        rows = cursor.fetchall()

    assert rows == [
        ("skipped", True, True),
        ("replaced", True, True),
        ("processed", True, False),
        ("processed", True, False),
    ]


def test_a_decision_that_is_undone_is_not_counted(collector: Collector) -> None:
    collector.refuse = refusing("lost", error_class=ErrorClass.PERMANENT)
    with transaction.atomic():
        publish_many([new("lost")])
    relay_until_idle()

    with transaction.atomic():
        deliveries_skip(ids=[Delivery.objects.get().pk], actor="user:ann", reason="nobody needs it")
        transaction.set_rollback(True)

    assert [figure.skipped for figure in TopicFigure.objects.all()] == [0]
