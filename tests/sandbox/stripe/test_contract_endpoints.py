from __future__ import annotations

from collections.abc import Iterator

import pytest
import stripe

from tests.sandbox.stripe.contract import Account, documented, error_of

ENDPOINTS = "docs.stripe.com/api/webhook_endpoints"
URL = "https://example.com/webhooks/stripe"


@pytest.fixture
def endpoint(account: Account) -> Iterator[stripe.WebhookEndpoint]:
    made = account.client.v1.webhook_endpoints.create(
        {
            "url": URL,
            "enabled_events": ["customer.created", "customer.updated"],
            "description": "Contract",
            "api_version": "2026-10-28.endive",
        }
    )
    yield made
    try:
        account.client.v1.webhook_endpoints.delete(made.id)
    except stripe.InvalidRequestError as error:
        if error.http_status != 404:
            raise


@documented(f"{ENDPOINTS}/object#webhook_endpoint_object-secret: only returned at creation")
def test_it_shows_the_secret_once(account: Account, endpoint: stripe.WebhookEndpoint) -> None:
    found = account.client.v1.webhook_endpoints.retrieve(endpoint.id)

    assert endpoint.secret is not None
    assert endpoint.secret.startswith("whsec_")
    assert "secret" not in found.to_dict()


@documented(f"{ENDPOINTS}/create")
def test_it_keeps_url_events_and_version(account: Account, endpoint: stripe.WebhookEndpoint) -> None:
    found = account.client.v1.webhook_endpoints.retrieve(endpoint.id)

    assert (found.url, found.status, found.livemode) == (URL, "enabled", False)
    assert found.enabled_events == ["customer.created", "customer.updated"]
    assert found.api_version == "2026-10-28.endive"


@documented(f"{ENDPOINTS}/update")
def test_it_changes_and_disables_an_endpoint(account: Account, endpoint: stripe.WebhookEndpoint) -> None:
    updated = account.client.v1.webhook_endpoints.update(endpoint.id, {"enabled_events": ["*"], "disabled": True})

    assert (updated.enabled_events, updated.status) == (["*"], "disabled")


@documented(f"{ENDPOINTS}/list")
def test_it_lists_endpoints(account: Account, endpoint: stripe.WebhookEndpoint) -> None:
    listed = account.client.v1.webhook_endpoints.list({"limit": 100})

    assert endpoint.id in [each.id for each in listed.data]


@documented(f"{ENDPOINTS}/delete")
def test_it_deletes_an_endpoint(account: Account, endpoint: stripe.WebhookEndpoint) -> None:
    deleted = account.client.v1.webhook_endpoints.delete(endpoint.id)

    error = error_of(lambda: account.client.v1.webhook_endpoints.retrieve(endpoint.id))
    assert deleted.to_dict() == {"id": endpoint.id, "object": "webhook_endpoint", "deleted": True}
    assert (error.http_status, error.code) == (404, "resource_missing")


@documented(f"{ENDPOINTS}/create: url and enabled_events are required")
@pytest.mark.parametrize("missing", ["url", "enabled_events"])
def test_it_wants_url_and_events(account: Account, missing: str) -> None:
    params = {"url": URL, "enabled_events": ["customer.created"]}
    del params[missing]

    error = error_of(lambda: account.client.v1.webhook_endpoints.create(params))

    assert (error.http_status, error.code, error.param) == (400, "parameter_missing", missing)
