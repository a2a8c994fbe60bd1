from __future__ import annotations

import uuid
from typing import Any

import pytest
from django.utils import timezone

from customers.models import Customer, SyncState
from tests.customers.published import published

pytestmark = [pytest.mark.feature("A9"), pytest.mark.django_db]

CUSTOMERS = "/api/v1/customers/"
JOHN = {
    "name": "John Doe",
    "email": "John@Example.com",
    "phone": "+49 228 1234",
    "address": {"line1": "Am Hof 1", "city": "Bonn", "country": "de"},
    "metadata": {"plan": "gold"},
}


def one(customer: Any) -> str:
    return f"{CUSTOMERS}{customer['id']}/"


@pytest.fixture(autouse=True)
def stripe_is_the_integration(settings: Any) -> None:
    settings.INTEGRATIONS = {"stripe": "customers.stripe.integration.StripeIntegration"}


def test_it_creates_a_customer(api: Any) -> None:
    answer = api.post(CUSTOMERS, JOHN)

    assert answer.status_code == 201
    body = answer.json()
    row = Customer.objects.get()
    assert uuid.UUID(body["id"]).version == 7
    assert body == {
        "id": str(row.pk),
        "name": "John Doe",
        "email": "John@example.com",
        "phone": "+49 228 1234",
        "address": {"line1": "Am Hof 1", "city": "Bonn", "country": "DE"},
        "metadata": {"plan": "gold"},
        "version": 1,
        "created_at": row.created_at.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "updated_at": body["created_at"],
        "deleted_at": None,
        "integrations": {"stripe": {"status": "pending", "remote_id": None}},
    }
    assert answer["Location"] == f"http://testserver{one(body)}"
    assert [event.type for event in published()] == ["customer.created"]


@pytest.mark.parametrize("path", ["/api/v1/customers/", "/api/v1/customers", "/customers/", "/customers"])
def test_it_answers_each_address_with_and_without_its_slash(api: Any, path: str) -> None:
    created = api.post(path, {"name": "Ann"})

    place = created["Location"].removeprefix("http://testserver")
    assert created.status_code == 201
    assert place == f"{path.removesuffix('/')}/{created.json()['id']}/"
    assert api.get(path).status_code == 200
    assert api.get(place).json() == api.get(place.removesuffix("/")).json() == created.json()


def test_it_takes_a_customer_with_a_name_or_an_email_alone(api: Any) -> None:
    unnamed = api.post(CUSTOMERS, {"email": "only@example.com"})
    unreachable = api.post(CUSTOMERS, {"name": "Only", "email": None})

    assert (unnamed.status_code, unnamed.json()["name"]) == (201, None)
    assert (unreachable.status_code, unreachable.json()["email"]) == (201, None)


def test_it_gives_back_what_integrations_say(api: Any) -> None:
    customer = api.post(CUSTOMERS, JOHN).json()
    SyncState.objects.create(
        customer_id=customer["id"], integration="stripe", livemode=False, status="in_sync", remote_id="cus_1"
    )

    expected = {"stripe": {"status": "in_sync", "remote_id": "cus_1"}}
    assert api.get(one(customer)).json()["integrations"] == expected
    assert api.get(CUSTOMERS).json()["results"][0]["integrations"] == expected


def test_it_puts_what_it_got_and_changes_nothing(api: Any) -> None:
    customer = api.post(CUSTOMERS, JOHN).json()

    answer = api.put(one(customer), api.get(one(customer)).json())

    assert (answer.status_code, answer.json()) == (200, customer)
    assert len(published()) == 1


def test_it_clears_with_put_what_is_left_out(api: Any) -> None:
    customer = api.post(CUSTOMERS, JOHN).json()

    body = api.put(one(customer), {"name": "Jane", "email": None}).json()

    assert (body["name"], body["email"], body["phone"], body["address"], body["metadata"], body["version"]) == (
        "Jane",
        None,
        None,
        None,
        {},
        2,
    )
    assert published()[-1].payload["changed"] == ["name", "email", "phone", "address", "metadata"]


def test_it_changes_with_patch_what_is_given(api: Any) -> None:
    customer = api.post(CUSTOMERS, JOHN).json()

    answer = api.patch(one(customer), {"phone": None, "metadata": {"tier": "2"}})

    assert answer.status_code == 200
    changed = {"phone": None, "metadata": {"tier": "2"}, "version": 2, "updated_at": answer.json()["updated_at"]}
    assert answer.json() == customer | changed
    row = Customer.objects.get()
    assert (row.phone, row.metadata, row.name) == (None, {"tier": "2"}, "John Doe")


def test_it_deletes_for_good(api: Any) -> None:
    customer = api.post(CUSTOMERS, JOHN).json()

    answer = api.delete(one(customer))

    assert (answer.status_code, answer.content) == (204, b"")
    assert Customer.objects.get().deleted_at is not None
    assert [event.type for event in published()] == ["customer.created", "customer.deleted"]
    for method, body in [("DELETE", None), ("GET", None), ("PATCH", {"name": "Back"}), ("PUT", JOHN)]:
        again = api(method, one(customer), body)
        assert (again.status_code, again.json()["code"]) == (410, "customer_deleted"), method
    assert api.get(CUSTOMERS).json()["results"] == []
    assert api.post(CUSTOMERS, JOHN).status_code == 201


def test_it_lets_readers_read_only(api: Any, reader: Any) -> None:
    customer = api.post(CUSTOMERS, JOHN).json()

    assert reader.get(one(customer)).status_code == 200
    assert reader.get(CUSTOMERS).status_code == 200
    for method, path in [
        ("POST", CUSTOMERS),
        ("PUT", one(customer)),
        ("PATCH", one(customer)),
        ("DELETE", one(customer)),
    ]:
        assert reader(method, path, {"name": "X"}).status_code == 403, method
    assert Customer.objects.get().version == 1


@pytest.mark.feature("A16")
@pytest.mark.parametrize(
    "path", [CUSTOMERS, "/customers", f"{CUSTOMERS}0190a000-0000-7000-8000-000000000000", "/customers/not-an-id/"]
)
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_it_is_closed_to_strangers(client: Any, path: str, method: str) -> None:
    answer = client.generic(method, path, b'{"name": "X"}', content_type="application/json")

    assert answer.status_code == 401
    assert answer["Content-Type"] == "application/problem+json"
    assert Customer.objects.count() == 0


def test_it_says_when_a_customer_was_deleted_to_those_who_may_ask(api: Any, operator: Any) -> None:
    Customer.objects.create(name="Gone", email="gone@example.com", deleted_at=timezone.now())

    refused = api.get(f"{CUSTOMERS}?include_deleted=true")
    [seen] = operator.get(f"{CUSTOMERS}?include_deleted=true&email=GONE@example.com").json()["results"]

    assert (refused.status_code, refused.json()["code"]) == (403, "insufficient_scope")
    assert seen["deleted_at"] is not None
    assert seen["integrations"] == {"stripe": {"status": "deleted", "remote_id": None}}
    assert operator.get(CUSTOMERS).json()["results"] == []
