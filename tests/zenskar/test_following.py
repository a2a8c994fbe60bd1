"""One change is followed by its correlation id and its trace, from the request to the webhook that answers it."""

from __future__ import annotations

import secrets
from typing import Any

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition
from django.test import Client
from pytest_django import Settings

from customers.models import Customer, SyncRequest, SyncState, Webhook
from customers.sync.runner import sync_due_once
from customers.sync.webhooks import webhooks_process_once
from operations.keys import apikey_create
from outbox import subscribers as registry
from outbox.relay import relay_once
from outbox.subscribers import subscribers
from tests.capturing import Capture, captured
from tests.customers.stripe.conftest import sandbox, stripe_server
from zenskar.sandbox.stripe.core import StripeSandbox

__all__ = ["sandbox", "stripe_server"]

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.feature("A13", "D8")]

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


@pytest.fixture
def topic(settings: Settings, sandbox: StripeSandbox) -> Any:
    settings.KAFKA_TOPIC_PREFIX = f"t{secrets.token_hex(4)}"
    settings.OUTBOX_SUBSCRIBERS = ["customers.sync.pokes.SyncPokes", "outbox.kafka.KafkaSubscriber"]
    registry.subscribers.cache_clear()
    yield f"{settings.KAFKA_TOPIC_PREFIX}.customers"
    for subscriber in subscribers():
        subscriber.close()
    registry.subscribers.cache_clear()


def kafka_headers(settings: Settings, topic: str) -> dict[str, str]:
    """Of the only record of the topic."""
    consumer = Consumer(
        {"bootstrap.servers": settings.KAFKA_BOOTSTRAP_SERVERS, "group.id": secrets.token_hex(4), "log_level": 3}
    )
    try:
        partitions = consumer.list_topics(topic, timeout=60).topics[topic].partitions
        consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in partitions])
        for _ in range(100):
            if found := [one for one in consumer.consume(1, timeout=0.1) if one.error() is None]:
                return {name: value.decode() for name, value in found[0].headers() or []}
        raise AssertionError("There is no record.")
    finally:
        consumer.close()


def bring_webhooks(sandbox: StripeSandbox) -> None:
    for webhook in sandbox.webhooks.pending():
        answer = Client().post(
            "/webhooks/stripe", webhook.body, content_type="application/json", headers=webhook.headers
        )
        assert answer.status_code == 200


def lines_of(capture: Capture, correlation: str) -> list[str]:
    """Names of the lines about this id, in their order."""
    return [
        line["event"]
        for line in capture.lines()
        if line.get("correlation_id") == correlation or correlation in line.get("correlation_ids", [])
    ]


def test_it_follows_a_change_from_the_request_to_its_webhook(
    topic: str, sandbox: StripeSandbox, settings: Settings
) -> None:
    issued = apikey_create(name="shop", scopes=["customers:write"])
    client = Client(
        headers={
            "Authorization": issued.authorization,
            "X-Correlation-ID": "order-21",
            "traceparent": TRACEPARENT,
        }
    )

    with captured() as capture:
        answer = client.post(
            "/api/v1/customers/", {"name": "Ada", "email": "ada@example.com"}, content_type="application/json"
        )
        relay_once()
        sync_due_once()
        bring_webhooks(sandbox)
        webhooks_process_once()

    assert (answer.status_code, answer["X-Correlation-ID"]) == (201, "order-21")
    followed = lines_of(capture, "order-21")
    names = ["events_enqueued", "request_finished", "events_processed", "events_published", "sync_ended"]
    assert [name for name in followed if name in names] == [
        "events_enqueued",
        "request_finished",
        "events_processed",
        "events_published",
        "events_processed",
        "sync_ended",
    ]
    assert followed[-1] == "webhooks_processed"
    headers = kafka_headers(settings, topic)
    assert (headers["correlation_id"], headers["traceparent"]) == ("order-21", TRACEPARENT)
    request = SyncRequest.objects.get()
    assert (request.correlation_id, request.traceparent) == ("order-21", TRACEPARENT)
    with_trace = [line for line in capture.lines() if line.get("trace_id") == TRACE]
    assert {line["event"] for line in with_trace} >= {"events_enqueued", "request_finished", "sync_ended"}


def test_it_follows_a_change_of_the_other_side_back_to_kafka(
    topic: str, sandbox: StripeSandbox, settings: Settings
) -> None:
    customer = Customer.objects.create(name="Ada", created_at="2026-01-01T00:00Z", updated_at="2026-01-01T00:00Z")
    SyncState.objects.create(customer=customer, integration="stripe", livemode=False, dirty_at="2026-01-01T00:00Z")
    sync_due_once()
    bring_webhooks(sandbox)
    webhooks_process_once()
    sandbox.customer_edit(SyncState.objects.get().remote_id or "", phone="+1")

    with captured() as capture:
        bring_webhooks(sandbox)
        webhooks_process_once()
        sync_due_once()
        relay_once()

    edit = Webhook.objects.order_by("id").last()
    assert edit is not None
    followed = lines_of(capture, edit.correlation_id)
    names = ["webhook_received", "webhooks_processed", "events_enqueued", "sync_ended", "events_published"]
    assert [name for name in followed if name in names] == names
    headers = kafka_headers(settings, topic)
    assert (headers["correlation_id"], headers["traceparent"]) == (edit.correlation_id, edit.traceparent)
