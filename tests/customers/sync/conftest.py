"""What the tests of the synchronisation share: the world in memory, pokes by hand, small steps."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import pytest
from django.db import connection
from pytest_django import Settings

from customers.integrations import integration_get
from customers.models import Customer, SyncState
from customers.services import customer_create
from customers.sync.engine import Outcome, sync_once
from customers.sync.pokes import SyncPokes
from customers.sync.webhooks import webhook_store, webhooks_process_once
from outbox.events import Event
from outbox.subscribers import Deadline
from tests.customers.sync.memory import MemoryIntegration, World

_COLUMNS = {
    "position": "0",
    "uid_text": "uid::text",
    "payload_text": "payload::text",
    "headers_text": "headers::text",
    "created_text": "to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')",
}
_EVENTS_SQL = f"""
SELECT {", ".join(_COLUMNS.get(name, name) for name in Event._fields)} FROM outbox_event WHERE id > %s ORDER BY id
"""


class Side:
    """This side of the synchronisation, driven by hand."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.read_up_to = 0

    def events(self) -> list[Event]:
        """Events that were published since the last call."""
        with connection.cursor() as cursor:
            cursor.execute(_EVENTS_SQL, [self.read_up_to])
            events = [Event._make(row) for row in cursor.fetchall()]
        self.read_up_to = max([event.id for event in events], default=self.read_up_to)
        return events

    def poke(self) -> list[Event]:
        """Deliver new events to the pokes."""
        events = self.events()
        SyncPokes().deliver(events, Deadline.after(10))
        return events

    def hear(self) -> int:
        """Deliver all waiting messages of the other side."""
        count = 0
        integration = integration_get("memory")
        while self.world.messages:
            body = json.dumps(self.world.messages.popleft()).encode()
            webhook_store(integration, integration.webhook_verify(body=body, headers={"Signature": "good"}))
            count += 1
        webhooks_process_once()
        return count

    def sync(self, customer: Customer) -> Outcome:
        return sync_once(self.state(customer).pk)

    def state(self, customer: Customer) -> SyncState:
        return SyncState.objects.get(customer=customer, integration="memory")

    def dirty(self) -> list[SyncState]:
        return list(SyncState.objects.filter(dirty_at__isnull=False).order_by("id"))

    def rest(self) -> None:
        """Deliver and synchronise until nothing is left to do."""
        for _ in range(20):
            self.poke()
            self.hear()
            dirty = self.dirty()
            if not dirty and not self.world.messages:
                return
            for state in dirty:
                sync_once(state.pk)
        raise AssertionError("It does not come to rest.")

    def linked(self, **fields: Any) -> Customer:
        """A customer that is in sync on both sides."""
        customer = customer_create(**fields)
        self.rest()
        return customer

    def remote(self, customer: Customer) -> dict[str, Any]:
        record = self.world.records[self.state(customer).remote_id or ""]
        return dict(record.fields)


@pytest.fixture
def world(settings: Settings) -> Iterator[World]:
    settings.INTEGRATIONS = {"memory": "tests.customers.sync.memory.MemoryIntegration"}
    settings.SYNC_RETRY_BASE_DELAY = 0
    MemoryIntegration.world = World()
    MemoryIntegration.policy, MemoryIntegration.remote_policy = "refuse", "archive"
    yield MemoryIntegration.world
    MemoryIntegration.world = World()


@pytest.fixture
def side(world: World, db: None) -> Side:
    side = Side(world)
    side.events()
    return side


def dies_at(name: str) -> Callable[[str], None]:
    """A step callback that kills the worker the first time it comes to ``name``."""

    def step(reached: str) -> None:
        if reached == name:
            raise Died(name)

    return step


class Died(BaseException):
    """The process ended here: nothing of ours may run after it."""


def customer_of(remote_id: str) -> Customer:
    found = SyncState.objects.get(remote_id=remote_id).customer
    assert found is not None
    return found


def as_uuid(text: str) -> UUID:
    return UUID(text)
