"""The Stripe sandbox over HTTP, as the adapter's other side, and this side driven by hand."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.test import Client
from pytest_django import Settings

from customers.models import Customer, SyncState
from customers.sync.engine import Outcome, sync_once
from customers.sync.pokes import SyncPokes
from customers.sync.webhooks import webhooks_process_once
from outbox.subscribers import Deadline
from tests.customers.sync.conftest import Side
from tests.customers.sync.memory import World
from zenskar.sandbox.stripe.core import StripeSandbox
from zenskar.sandbox.stripe.server import StripeSandboxServer

SECRET = "whsec_of_these_tests"


@pytest.fixture(scope="session")
def stripe_server() -> Iterator[StripeSandboxServer]:
    with StripeSandboxServer(webhook_secret=SECRET, search_lag=60) as server:
        yield server


@pytest.fixture
def sandbox(stripe_server: StripeSandboxServer, settings: Settings) -> Iterator[StripeSandbox]:
    sandbox = stripe_server.sandbox
    sandbox.reset()
    # Kept by reset(): one that a test registered would have its share of the webhooks of all others.
    sandbox.store.endpoints.clear()
    settings.STRIPE_API_KEY = sandbox.api_key
    settings.STRIPE_API_BASE = stripe_server.url
    settings.STRIPE_WEBHOOK_SECRETS = [SECRET]
    settings.STRIPE_RATE_LIMIT = 10_000
    settings.SYNC_RETRY_BASE_DELAY = 0
    yield sandbox
    sandbox.reset()


class StripeSide(Side):
    """This side, with webhooks that come in by HTTP."""

    def __init__(self, sandbox: StripeSandbox) -> None:
        super().__init__(World())
        self.sandbox = sandbox
        self.client = Client()

    def poke(self) -> list[Any]:
        events = self.events()
        SyncPokes().deliver(events, Deadline.after(10))
        return events

    def hear(self) -> int:
        pending = self.sandbox.webhooks.pending()
        for webhook in pending:
            response = self.post(webhook.body, **webhook.headers)
            assert response.status_code == 200, response.content
        webhooks_process_once()
        return len(pending)

    def post(self, body: bytes, path: str = "/webhooks/stripe", **headers: str) -> Any:
        return self.client.post(path, body, content_type="application/json", headers=headers)

    def rest(self) -> None:
        for _ in range(20):
            self.poke()
            heard = self.hear()
            dirty = self.dirty()
            if not dirty and not heard:
                return
            for state in dirty:
                sync_once(state.pk)
        raise AssertionError("It does not come to rest.")

    def state(self, customer: Customer) -> SyncState:
        return SyncState.objects.get(customer=customer, integration="stripe")

    def sync(self, customer: Customer) -> Outcome:
        return sync_once(self.state(customer).pk)

    def there(self, customer: Customer) -> dict[str, Any]:
        return self.sandbox.customers[self.state(customer).remote_id or ""]

    def writes(self) -> list[str]:
        return [f"{line.method} {line.path}" for line in self.sandbox.request_log.writes()]


@pytest.fixture
def stripe_side(sandbox: StripeSandbox, db: None) -> StripeSide:
    side = StripeSide(sandbox)
    side.events()
    return side
