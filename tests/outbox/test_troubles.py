from __future__ import annotations

import json

import pytest
from django.test import Client

from operations.models import AuditEntry
from operations.troubles.services import troubles_page, troubles_retry
from operations.troubles.sources import sources
from outbox.errors import ErrorClass
from outbox.models import Delivery
from outbox.relay import relay_until_idle
from outbox.subscribers import Failure
from outbox.troubles import DeadDeliveries
from tests.operations.conftest import api, issued
from tests.outbox.collecting import Collector
from tests.outbox.conftest import publish_all

__all__ = ["api", "issued"]
pytestmark = [pytest.mark.feature("A12", "D10", "H4"), pytest.mark.django_db(transaction=True)]


@pytest.fixture
def dead(collector: Collector) -> list[str]:
    """Seven dead deliveries of two kinds, newest first."""
    collector.refuse = lambda event: Failure(
        event, ErrorClass.PERMANENT, "odd" if int(event.aggregate_id) % 2 else "even", "It said no."
    )
    publish_all(*[str(n) for n in range(7)])
    relay_until_idle()
    return [str(key) for key in Delivery.objects.order_by("-pk").values_list("pk", flat=True)]


def test_it_groups_and_pages_what_is_dead(dead: list[str]) -> None:
    source = DeadDeliveries()

    groups = source.groups()
    first, place = troubles_page([source], fingerprint=None, place=("", ""), limit=4)
    assert place is not None
    rest, end = troubles_page([source], fingerprint=None, place=place, limit=4)
    kind = source.troubles(fingerprint=groups[0].fingerprint)

    assert "deliveries" in {one.name for one in sources()}
    assert [(group.code, group.count) for group in groups] == [("even", 4), ("odd", 3)]
    assert sum(groups[0].hours) == 4
    assert [trouble.id for _, trouble in first + rest] == dead
    assert end is None
    assert {trouble.code for trouble in kind} == {"even"}
    assert source.counts() == {"dead": 7}
    assert [group.code for group in source.groups(fingerprint=groups[1].fingerprint)] == ["odd"]


def test_it_tries_a_kind_again_and_delivers_it(collector: Collector, dead: list[str]) -> None:
    source = DeadDeliveries()
    kind = next(group for group in source.groups() if group.code == "odd")
    collector.refuse = lambda event: None

    retried = troubles_retry(source=source, actor="user:ann", reason="fixed", fingerprint=kind.fingerprint)
    relay_until_idle()

    assert len(retried) == 3
    assert sorted(event.aggregate_id for event in collector.got) == ["1", "3", "5"]
    assert source.counts() == {"dead": 4}
    assert AuditEntry.objects.filter(actor="user:ann").exists()


def test_it_leaves_what_is_not_dead_alone(dead: list[str]) -> None:
    assert troubles_retry(source=DeadDeliveries(), actor="a", reason="", ids=["0", "x", "9" * 30, "-1"]) == []


def test_it_offers_the_operation_for_all_of_a_kind(dead: list[str], api: Client) -> None:
    source = DeadDeliveries()
    group = next(group for group in source.groups() if group.code == "even")
    found = source.operation_for(group.fingerprint)
    assert found is not None
    body = {"kind": found[0], "filter": found[1], "dry_run": True}

    answer = api.post("/api/v1/admin/operations/", json.dumps(body), content_type="application/json")

    assert answer.json()["plan"]["eligible"] == 4
