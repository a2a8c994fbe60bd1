from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from django.conf import LazySettings
from django.db import connection, transaction

from outbox import subscribers as registry
from outbox.events import NewEvent
from outbox.publishing import publish_many
from outbox.subscriptions import subscriptions_ensure
from tests.outbox.collecting import Collector, Ledger

Publisher = Callable[..., list[int]]


def new(aggregate: str = "a", **changes: object) -> NewEvent:
    values: dict[str, object] = {
        "topic": "customers",
        "type": "customer.updated",
        "aggregate_type": "customer",
        "aggregate_id": aggregate,
        "payload": {"n": 1},
    }
    return NewEvent(**{**values, **changes})  # type: ignore[arg-type]


def publish_all(*aggregates: str) -> list[int]:
    """Publish one event of each aggregate, in this order, in one transaction."""
    with transaction.atomic():
        return publish_many([new(aggregate) for aggregate in aggregates])


def only(monkeypatch: pytest.MonkeyPatch, *subscribers: registry.Subscriber) -> None:
    for module in ("outbox.subscribers", "outbox.relay", "outbox.subscriptions", "outbox.relaying"):
        monkeypatch.setattr(f"{module}.subscribers", lambda: subscribers)
    subscriptions_ensure()


@pytest.fixture(autouse=True)
def no_validators(settings: LazySettings) -> None:
    """Events of these tests have made-up payloads."""
    settings.OUTBOX_PAYLOAD_VALIDATORS = {}


@pytest.fixture
def collector(transactional_db: None, monkeypatch: pytest.MonkeyPatch) -> Collector:
    """The only subscriber: outside of transactions, in memory."""
    subscriber = Collector()
    only(monkeypatch, subscriber)
    return subscriber


@pytest.fixture
def ledger(transactional_db: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ledger]:
    """The only subscriber: transactional, into a table with constraints."""
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE TABLE ledger (event_id bigint UNIQUE DEFERRABLE INITIALLY DEFERRED, aggregate_id text,"
            " sequence bigint, amount int CHECK (amount > 0), nth bigint GENERATED ALWAYS AS IDENTITY)"
        )
    subscriber = Ledger()
    only(monkeypatch, subscriber)
    yield subscriber
    Ledger.poison.clear()
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE ledger")
