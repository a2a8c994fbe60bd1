"""The two ways by which changes reach the synchronisation: straight from the log, and through Kafka."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from importlib import reload

import pytest
from django.core.exceptions import ImproperlyConfigured
from pytest_django import Settings

from customers.models import SyncState
from customers.services import customer_create, customer_update
from customers.sync import consuming
from customers.sync.conf import sync_settings
from customers.sync.runner import sync_due_once
from outbox.consuming.handlers import unregister
from outbox.consuming.worker import ConsumerWorker
from outbox.relay import relay_until_idle
from tests.customers.sync.memory import World

pytestmark = [pytest.mark.feature("A11", "G1"), pytest.mark.django_db(transaction=True)]


@pytest.fixture
def _kafka(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    settings.KAFKA_TOPIC_PREFIX = f"t{secrets.token_hex(4)}"
    monkeypatch.setattr("outbox.kafka_topics.ANSWER_SECONDS", 1.0)
    unregister(group=consuming.GROUP)
    reload(consuming)
    yield
    unregister(group=consuming.GROUP)


@pytest.mark.parametrize("route", ["log", "kafka"])
@pytest.mark.usefixtures("_kafka")
def test_a_change_reaches_the_other_side_by_either_route(route: str, world: World, settings: Settings) -> None:
    subscriber = {"log": "customers.sync.pokes.SyncPokes", "kafka": "outbox.kafka.KafkaSubscriber"}[route]
    settings.OUTBOX_SUBSCRIBERS = [subscriber]
    ada = customer_create(name="Ada")
    customer_create(name="Known", origin="memory")
    customer_update(customer_id=ada.pk, changes={"name": "Ada 2"})
    bulk = customer_create(name="Bulk", priority="bulk")

    relay_until_idle()
    if route == "kafka":
        assert not SyncState.objects.exists()
        worker = ConsumerWorker(consuming.GROUP, ["customers"])
        worker.run_until_idle()
        worker.close()
    priorities = dict(SyncState.objects.values_list("customer_id", "priority"))
    while sync_due_once():
        pass

    assert set(priorities) == {ada.pk, bulk.pk}
    assert priorities[bulk.pk] > priorities[ada.pk]
    assert sorted(record.fields["name"] for record in world.records.values()) == ["Ada 2", "Bulk"]


@pytest.mark.parametrize(("route", "servers"), [("pigeon", "127.0.0.1:1"), ("kafka", "")])
def test_it_refuses_a_route_that_leads_nowhere(route: str, servers: str, settings: Settings) -> None:
    settings.SYNC_ROUTE = route
    settings.KAFKA_BOOTSTRAP_SERVERS = servers

    with pytest.raises(ImproperlyConfigured, match="SYNC_ROUTE"):
        sync_settings()
