"""The life of a thing: one search box, one timeline, from the API call to the webhook that answers it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from pytest_django import Settings

from customers.models import SyncRequest, SyncState, Webhook
from customers.sync.runner import sync_due_once
from customers.sync.webhooks import webhooks_process_once
from operations.correlation import correlation_bound
from outbox import subscribers as registry
from outbox.models import StoredEvent
from outbox.relay import relay_once
from projections.runner import projections_run_once
from tests.customers.conftest import Api
from tests.customers.stripe.conftest import sandbox, stripe_server
from tests.operations.conftest import MakeClient, staff_client
from tests.projections.cleaning import builds_drop
from zenskar.sandbox.stripe.core import StripeSandbox

__all__ = ["sandbox", "staff_client", "stripe_server"]

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.feature("H5")]

LIFE = "/api/v1/admin/life"
CUSTOMERS = "/api/v1/customers/"


@pytest.fixture(autouse=True)
def _clean(transactional_db: None, settings: Settings) -> Iterator[None]:
    settings.OUTBOX_SUBSCRIBERS = ["customers.sync.pokes.SyncPokes"]
    settings.PROJECTIONS = ["customers.readmodels.directory.CustomerDirectory"]
    registry.subscribers.cache_clear()
    builds_drop("customers_directory")
    yield
    builds_drop("customers_directory")
    registry.subscribers.cache_clear()


@pytest.fixture
def api(transactional_db: None) -> Api:
    return Api("customers:read", "customers:write", "operations:read", "operations:write")


def lived(api: Api, sandbox: StripeSandbox, **body: str) -> str:
    """A customer that went all the way, under the correlation id order-21; its id."""
    answer = api.post(
        CUSTOMERS,
        {"name": "Ada", "email": f"{uuid4().hex}@example.com", **body},
        X_Correlation_ID="order-21",
        Idempotency_Key=uuid4().hex,
    )
    assert answer.status_code == 201, answer.content
    relay_once()
    projections_run_once()
    sync_due_once()
    bring_webhooks(sandbox)
    return str(answer.json()["id"])


def bring_webhooks(sandbox: StripeSandbox) -> None:
    for webhook in sandbox.webhooks.pending():
        answer = Client().post(
            "/webhooks/stripe", webhook.body, content_type="application/json", headers=webhook.headers
        )
        assert answer.status_code == 200
    webhooks_process_once()


def life(api: Api, term: object) -> Any:
    answer = api.get(f"{LIFE}?q={quote(str(term))}")
    assert answer.status_code == 200, answer.content
    return answer.json()


def told(document: Any) -> list[tuple[str, str, str]]:
    return [(entry["section"], entry["kind"], entry["state"]) for entry in document["entries"]]


def test_it_tells_an_event_from_the_request_to_the_webhook(api: Api, sandbox: StripeSandbox) -> None:
    customer = lived(api, sandbox)
    event = StoredEvent.objects.get()

    found = life(api, event.pk)

    assert (found["subject"]["kind"], found["subject"]["value"]) == ("event", str(event.pk))
    assert found["subject"]["also"] == ["correlation:order-21"]
    assert sorted(told(found)) == [
        ("calls", "call", "201"),
        ("deliveries", "delivery", "processed"),
        ("log", "event", "processed"),
        ("read_models", "read_model", "applied"),
        ("sync", "sync_request", "succeeded"),
        ("webhooks", "webhook", "ignored"),
    ]
    times = [entry["at"] for entry in found["entries"]]
    assert times == sorted(times)
    assert [entry["section"] for entry in found["entries"]][:2] == ["calls", "log"]
    by_section = {entry["section"]: entry for entry in found["entries"]}
    assert f"customer:{customer}" in by_section["log"]["about"]
    assert by_section["log"]["data"]["name"] == "Ada"
    assert by_section["sync"]["attempts"] == 1
    request = SyncRequest.objects.get()
    assert by_section["webhooks"]["about"][:2] == [
        f"webhook:{Webhook.objects.get().event_id}",
        f"request:{request.key}",
    ]


@pytest.mark.parametrize("by", ["correlation", "uid", "request", "webhook", "customer", "stripe"])
def test_it_knows_what_an_id_is_of(api: Api, sandbox: StripeSandbox, by: str) -> None:
    customer = lived(api, sandbox)
    terms = {
        "correlation": "order-21",
        "uid": str(StoredEvent.objects.get().uid),
        "request": SyncRequest.objects.get().key,
        "webhook": Webhook.objects.get().event_id,
        "customer": customer,
        "stripe": SyncState.objects.get().remote_id,
    }
    kinds = {"uid": "event", "stripe": "customer"}

    found = life(api, terms[by])

    assert found["subject"]["kind"] == kinds.get(by, by)
    sections = {entry["section"] for entry in found["entries"]}
    assert sections >= {"calls", "log", "deliveries", "read_models", "sync", "webhooks"}
    # And each leads to the others.
    about = {name for entry in found["entries"] for name in entry["about"]}
    for name in about:
        assert life(api, name)["entries"], name


def test_it_tells_of_a_change_that_came_from_the_other_side(api: Api, sandbox: StripeSandbox) -> None:
    lived(api, sandbox)
    sandbox.customer_edit(SyncState.objects.get().remote_id or "", phone="+1")
    bring_webhooks(sandbox)
    sync_due_once()
    relay_once()
    edit = Webhook.objects.order_by("id").last()
    assert edit is not None

    found = life(api, edit.event_id)

    assert sorted(told(found)) == [
        ("deliveries", "delivery", "processed"),
        ("log", "event", "processed"),
        ("read_models", "read_model", "pending"),
        ("webhooks", "webhook", "looked at"),
    ]
    # What has not happened yet has no time, and comes last.
    assert (found["entries"][-1]["section"], found["entries"][-1]["at"]) == ("read_models", None)


def test_changes_that_went_out_as_one_name_the_request_that_took_them(api: Api, sandbox: StripeSandbox) -> None:
    customer = lived(api, sandbox)
    for name in ("Ada L.", "Ada Lovelace"):
        api.patch(f"{CUSTOMERS}{customer}", {"name": name}, X_Correlation_ID=f"rename-{name[4]}{len(name)}")
        relay_once()
    sync_due_once()
    first, second = StoredEvent.objects.order_by("id")[1:]

    found = [life(api, event.pk) for event in (first, second)]

    keys = [[e["id"] for e in one["entries"] if e["kind"] == "sync_request"] for one in found]
    assert keys[0] == keys[1] == [SyncRequest.objects.order_by("id").last().key]  # type: ignore[union-attr]


def test_it_says_what_else_an_id_may_mean(api: Api) -> None:
    with correlation_bound("3000000000000000001"):
        api.post(CUSTOMERS, {"name": "Ada"}, X_Correlation_ID="77")
    event = StoredEvent.objects.get()
    api.post(CUSTOMERS, {"name": "Bob"}, X_Correlation_ID=str(event.pk))

    bare = life(api, event.pk)
    as_correlation = life(api, f"correlation:{event.pk}")

    assert bare["subject"]["kind"] == "event"
    assert [one["kind"] for one in bare["others"]] == ["correlation"]
    assert as_correlation["subject"]["kind"] == "correlation"
    assert [entry["data"]["name"] for entry in as_correlation["entries"] if entry["kind"] == "event"] == ["Bob"]


def test_its_queries_do_not_grow_with_what_it_finds(api: Api, sandbox: StripeSandbox) -> None:
    customer = lived(api, sandbox)

    def asked() -> int:
        with CaptureQueriesContext(
            connection,
        ) as queries:
            life(api, f"customer:{customer}")
        return len(queries)

    few = asked()
    for number in range(8):
        api.patch(f"{CUSTOMERS}{customer}", {"name": f"Ada {number}"}, Idempotency_Key=uuid4().hex)
        relay_once()
        sync_due_once()
        bring_webhooks(sandbox)
    projections_run_once()

    assert asked() == few


def test_it_shows_no_more_than_it_can(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("operations.life.sources", "outbox.life"):
        monkeypatch.setattr(f"{module}.SHOWN", 2)
    for number in range(4):
        api.post(CUSTOMERS, {"name": f"c{number}"}, X_Correlation_ID="many")
    ids = list(StoredEvent.objects.order_by("id").values_list("id", flat=True))

    by_correlation, by_event = life(api, "many"), life(api, ids[-1])

    shown = [[int(e["id"]) for e in one["entries"] if e["kind"] == "event"] for one in (by_correlation, by_event)]
    assert shown == [ids[:2], [ids[0], ids[-1]]]
    assert all(section["more"] for section in by_event["sections"] if section["name"] == "log")


@pytest.mark.parametrize("scopes", [("operations:read",), ("operations:read", "operations:write")])
def test_payloads_are_for_those_who_may_read_them(sandbox: StripeSandbox, scopes: tuple[str, ...]) -> None:
    lived(Api("customers:write"), sandbox)

    answer = Api(*scopes).get(f"{LIFE}/?q=order-21")

    assert answer.status_code == 200
    assert (b"example.com" in answer.content) is (len(scopes) == 2)


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("", 400, "validation_failed"),
        ("?q=", 400, "validation_failed"),
        ("?q=%20", 400, "validation_failed"),
        ("?q=" + "a" * 301, 400, "validation_failed"),
        ("?q=a%00b", 400, "malformed_request"),
        ("?q=a%0Ab", 400, "validation_failed"),
        ("?q=1&q=2", 400, "validation_failed"),
        ("?q=1&depth=2", 400, "validation_failed"),
        ("?q=nobody", 404, "nothing_known"),
        ("?q=99999999999999999999", 404, "nothing_known"),
        ("?q=999999999999999999", 404, "nothing_known"),
        ("?q=event:abc", 404, "nothing_known"),
        ("?q=customer:", 404, "nothing_known"),
        ("?q=:::", 404, "nothing_known"),
        ("?q=%F0%9F%A6%8A", 404, "nothing_known"),
        ("?q=019a8f6e-6a1b-7c3d-9e4f-5a6b7c8d9e0f:1", 404, "nothing_known"),
    ],
)
def test_it_refuses_what_is_no_name(api: Api, query: str, status: int, code: str) -> None:
    answer = api.get(f"{LIFE}{query}")

    assert (answer.status_code, answer["Content-Type"]) == (status, "application/problem+json")
    assert answer.json()["code"] == code


def test_it_is_closed_to_strangers(client: Client) -> None:
    assert client.get(f"{LIFE}?q=1").status_code == 401
    assert Api("customers:read").get(f"{LIFE}?q=1").status_code == 403
    assert client.get("/admin/life/?q=1").status_code == 302


def test_people_see_the_parts_that_they_may(sandbox: StripeSandbox, staff_client: MakeClient) -> None:
    lived(Api("customers:write"), sandbox)
    clerk = staff_client()
    person = User.objects.get(username="ann")

    refused = clerk.get("/admin/life/?q=order-21")
    person.user_permissions.add(Permission.objects.get(codename="view_storedevent"))
    page = clerk.get("/admin/life/?q=order-21").content.decode()

    assert refused.status_code == 403
    assert "customer.created" in page
    assert "•••" in page and "example.com" not in page
    assert "customers.view_webhook" in page
    assert "/admin/customers/" not in page.partition("Timeline")[2]


def test_the_console_tells_the_same_and_leads_on(api: Api, sandbox: StripeSandbox, staff_client: MakeClient) -> None:
    customer = lived(api, sandbox)
    client = staff_client("operator")

    empty = client.get("/admin/life")
    page = client.get("/admin/life/?q=order-21").content.decode()
    unknown = client.get("/admin/life/?q=nobody")

    assert empty.status_code == 200
    assert unknown.status_code == 404 and b"Nothing here goes by that name" in unknown.content
    for entry in life(api, "order-21")["entries"]:
        assert entry["what"].replace("'", "&#x27;") in page
    assert f"/admin/life/?q=customer%3A{customer}" in page
    assert 'style="' not in page.partition('id="content"')[2]


def test_pages_of_the_console_lead_to_the_life_of_what_they_show(
    api: Api, sandbox: StripeSandbox, staff_client: MakeClient
) -> None:
    customer = lived(api, sandbox)
    client = staff_client("operator")
    event, request, webhook = StoredEvent.objects.get(), SyncRequest.objects.get(), Webhook.objects.get()

    pages = {
        f"/admin/outbox/storedevent/{event.pk}/change/": [f"event%3A{event.pk}", "correlation%3Aorder-21"],
        f"/admin/customers/customer/{customer}/change/": [f"customer%3A{customer}"],
        f"/admin/customers/syncrequest/{request.pk}/change/": [f"request%3A{quote(request.key, safe='')}"],
        f"/admin/customers/webhook/{webhook.pk}/change/": [f"webhook%3A{webhook.event_id}"],
        f"/admin/customers/syncstate/{request.state_id}/change/": [f"customer%3A{customer}"],
    }

    for address, names in pages.items():
        page = client.get(address).content.decode()
        for name in names:
            assert f"/admin/life/?q={name}" in page, (address, name)
            assert client.get(f"/admin/life/?q={name}").status_code == 200
