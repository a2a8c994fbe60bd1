from __future__ import annotations

import threading
from typing import Any

import pytest
from django.conf import LazySettings, settings
from django.contrib.auth.models import Permission
from django.contrib.auth.models import User as User_
from django.test import Client
from django.utils import timezone

from customers.sync.pokes import SyncPokes
from examples.petstore.errors import OutOfStock
from examples.petstore.models import Order, OrderBookEntry, Pet, User
from examples.petstore.services import order_place
from outbox.deciding import deliveries_skip
from outbox.models import Delivery, StoredEvent
from outbox.relay import relay_until_idle
from projections.runner import projections_run_once
from projections.verifying import projection_verify
from tests.customers.conftest import Api
from tests.customers.published import published
from tests.customers.races import in_threads
from tests.petstore.conftest import SHOP

BUDDY = {
    "name": "Buddy",
    "species": "dog",
    "breed": "Golden Retriever",
    "age": 3,
    "price": 1200.00,
    "category": "friendly",
    "description": "A friendly and energetic dog",
}
TOM = {"name": "Tom", "species": "cat", "price": 500.00}


def made(answer: Any) -> Any:
    assert answer.status_code == 200, answer.content
    return answer.json()


def pet(shop: Api, **more: Any) -> str:
    return str(made(shop.post(f"{SHOP}/pets", {**TOM, **more}))["pet_id"])


@pytest.mark.feature("D3", "D2")
@pytest.mark.parametrize("slash", ["", "/"])
def test_it_puts_a_pet_up_for_sale_with_its_event(shop: Api, slash: str) -> None:
    answer = made(shop.post(f"{SHOP}/pets{slash}", BUDDY))

    (event,) = published()
    assert answer["pet_id"].startswith("pet_")
    assert {name: answer[name] for name in BUDDY} == BUDDY
    assert (event.topic, event.type, event.aggregate_id) == ("pets", "created", answer["pet_id"])
    assert event.payload == {**BUDDY, "pet_id": answer["pet_id"], "stock": 1}
    assert StoredEvent.objects.get().pk == answer["event_id"]


@pytest.mark.feature("D3")
def test_it_needs_name_species_and_price_only(shop: Api) -> None:
    answer = made(shop.post(f"{SHOP}/pets", TOM))

    assert (answer["stock"], answer["age"], answer["breed"]) == (1, None, "")


@pytest.mark.feature("D3")
@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({**TOM, "price": 0}, "/price"),
        ({**TOM, "price": -1}, "/price"),
        ({**TOM, "price": "NaN"}, "/price"),
        ({**TOM, "price": 1.005}, "/price"),
        ({**TOM, "price": 10**9}, "/price"),
        ({**TOM, "price": None}, "/price"),
        ({**TOM, "age": -1}, "/age"),
        ({**TOM, "age": 201}, "/age"),
        ({**TOM, "age": 1.5}, "/age"),
        ({**TOM, "name": ""}, "/name"),
        ({**TOM, "name": "x" * 101}, "/name"),
        ({**TOM, "name": "a\0b"}, "/name"),
        ({**TOM, "stock": 0}, "/stock"),
        ({**TOM, "color": "red"}, "/color"),
        ({"name": "Tom", "price": 5}, "/species"),
    ],
)
def test_it_refuses_pets_that_are_none(shop: Api, body: Any, pointer: str) -> None:
    answer = shop.post(f"{SHOP}/pets", body)

    assert answer.status_code == 400, answer.content
    assert answer.json()["errors"][0]["pointer"] == pointer
    assert not Pet.objects.exists()
    assert not published()


@pytest.mark.feature("D3", "D6")
def test_an_order_writes_its_events_in_one_transaction_and_in_order(shop: Api) -> None:
    pet_id = pet(shop)

    answer = made(
        shop.post(
            f"{SHOP}/orders",
            {"customer_id": "customer_123", "pet_id": pet_id, "quantity": 1, "special_instructions": "with care"},
        )
    )

    created, confirmed = [event for event in published() if event.topic == "orders"]
    (_, reserved) = [event for event in published() if event.topic == "pets"]
    assert answer["status"] == "confirmed"
    assert (created.type, created.sequence, confirmed.type, confirmed.sequence) == ("created", 1, "confirmed", 2)
    assert created.payload["status"] == "pending"
    assert created.payload["customer_id"] == "customer_123"
    assert set(confirmed.payload) == {"order_id", "status", "confirmed_at"}
    assert reserved.payload == {"pet_id": pet_id, "order_id": answer["order_id"], "quantity": 1, "stock": 0}
    assert Pet.objects.get().stock == 0


@pytest.mark.feature("D3")
@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"pet_id": "pet_456"}, 404, "unknown_pet"),
        ({"quantity": 2}, 409, "out_of_stock"),
        ({"quantity": 0}, 400, "validation_failed"),
        ({"quantity": "many"}, 400, "validation_failed"),
        ({"quantity": 10**9}, 400, "validation_failed"),
        ({"customer_id": ""}, 400, "validation_failed"),
        ({"customer_id": "x" * 256}, 400, "validation_failed"),
        ({"pet_id": None}, 400, "validation_failed"),
        ({"discount": 1}, 400, "validation_failed"),
    ],
)
def test_it_refuses_orders_that_it_cannot_fill(shop: Api, body: Any, status: int, code: str) -> None:
    order = {"customer_id": "customer_123", "pet_id": pet(shop), **body}

    answer = shop.post(f"{SHOP}/orders", order)

    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert not Order.objects.exists()
    assert Pet.objects.get().stock == 1
    assert len(published()) == 1


@pytest.mark.feature("D3")
def test_of_two_who_want_the_last_one_one_gets_it(shop: Api) -> None:
    pet_id = pet(shop, stock=3)
    barrier = threading.Barrier(6)
    outcomes: list[str] = []

    def buy() -> None:
        barrier.wait(60)
        try:
            order_place(customer_id="c", pet_id=pet_id)
        except OutOfStock:
            outcomes.append("refused")
        else:
            outcomes.append("bought")

    errors = in_threads(*[buy] * 6)

    assert errors == []
    assert sorted(outcomes) == ["bought"] * 3 + ["refused"] * 3
    assert Pet.objects.get().stock == 0
    assert sorted(event.payload["stock"] for event in published() if event.type == "reserved") == [0, 1, 2]


@pytest.mark.feature("D3")
def test_it_registers_a_user_once(shop: Api) -> None:
    body = {"name": "John Doe", "email": "john@example.com", "phone": "+1234567890"}

    first = made(shop.post(f"{SHOP}/users/user_789/register", body))
    second = shop.post(f"{SHOP}/users/user_789/register", body)

    (event,) = published()
    assert first == {"user_id": "user_789", "event_id": first["event_id"], "status": "registered"}
    assert (second.status_code, second.json()["code"]) == (409, "already_registered")
    assert (event.topic, event.type, event.payload) == ("users", "registered", {"user_id": "user_789", **body})
    assert User.objects.count() == 1


@pytest.mark.feature("D3")
@pytest.mark.parametrize(
    ("user", "body"),
    [
        ("user_1", {"name": "John", "email": "nothing"}),
        ("user_1", {"name": "John"}),
        ("a%20b", {"name": "John", "email": "john@example.com"}),
        ("x" * 101, {"name": "John", "email": "john@example.com"}),
    ],
)
def test_it_refuses_users_that_are_none(shop: Api, user: str, body: Any) -> None:
    assert shop.post(f"{SHOP}/users/{user}/register", body).status_code == 400
    assert not published()


@pytest.mark.feature("H3", "D3")
def test_the_order_book_shows_an_order_that_was_just_placed(shop: Api) -> None:
    orders = [made(shop.post(f"{SHOP}/orders", {"customer_id": f"c{n % 2}", "pet_id": pet(shop)})) for n in range(4)]
    last = orders[-1]
    projections_run_once()

    one = shop.get(f"{SHOP}/orders/{last['order_id']}?wait_for={last['event_ids'][-1]}").json()
    own = shop.get(f"{SHOP}/orders?customer_id=c1").json()["results"]

    assert (one["status"], one["total"], one["customer_id"]) == ("confirmed", 500.0, "c1")
    assert [row["order_id"] for row in own] == [orders[3]["order_id"], orders[1]["order_id"]]
    assert shop.get(f"{SHOP}/orders/nothing").status_code == 404
    assert projection_verify(name="order_book").count == 0


@pytest.mark.feature("H3", "D3")
@pytest.mark.parametrize("narrowed", ["", "&customer_id=c1"])
def test_the_order_book_leads_from_page_to_page(shop: Api, narrowed: str) -> None:
    placed = [made(shop.post(f"{SHOP}/orders", {"customer_id": f"c{n % 2}", "pet_id": pet(shop)})) for n in range(6)]
    projections_run_once()
    # All in one instant: none may be left out or come twice.
    OrderBookEntry.objects.update(ordered_at=timezone.now())

    pages, address = [], f"{SHOP}/orders?page_size=2&wait_for={placed[-1]['event_ids'][-1]}{narrowed}"
    while address:
        pages.append(made(shop.get(address)))
        address = pages[-1]["next"]

    wanted = sorted((one["order_id"] for one in placed if not narrowed or one["customer_id"] == "c1"), reverse=True)
    assert [row["order_id"] for page in pages for row in page["results"]] == wanted
    assert len(pages) == -(-len(wanted) // 2)


@pytest.mark.feature("H3", "D3")
def test_the_order_book_goes_on_only_after_an_order_that_it_has(shop: Api) -> None:
    refused = shop.get(f"{SHOP}/orders?after=order_1")

    assert refused.status_code == 400
    assert refused.json()["errors"][0]["pointer"] == "/after"


@pytest.mark.feature("H3")
def test_the_order_book_stands_orders_that_are_cut_between_batches(shop: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    from examples.petstore.order_book import OrderBook

    monkeypatch.setattr(OrderBook, "batch_size", 2)
    for _ in range(5):
        shop.post(f"{SHOP}/orders", {"customer_id": "c", "pet_id": pet(shop)})

    projections_run_once()

    verified = projection_verify(name="order_book")
    assert (verified.count, verified.rows, verified.events) == (0, 5, 10)


@pytest.mark.feature("D4")
def test_its_figures_are_those_of_the_log(shop: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    pet(shop)
    before = made(shop.get(f"{SHOP}/metrics"))
    relay_until_idle()
    projections_run_once()

    after = made(shop.get(f"{SHOP}/metrics/"))
    health = made(shop.get(f"{SHOP}/health"))

    assert set(before) == {"outbox_metrics", "service_status", "kafka_status", "timestamp"}
    assert before["outbox_metrics"]["pending_events"] == 1
    assert after["outbox_metrics"] == {
        "pending_events": 0,
        "failed_events": 0,
        "processed_today": 1,
        "running": True,
        "kafka_connected": True,
    }
    assert (after["service_status"], after["kafka_status"]) == ("running", "connected")
    assert (health["status"], health["order_book"]) == ("healthy", "healthy")


@pytest.mark.feature("D4", "D10")
def test_what_was_given_up_is_neither_failed_nor_processed(shop: Api, settings: LazySettings) -> None:
    settings.KAFKA_MESSAGE_MAX_BYTES = 2_000
    pet(shop, description="x" * 2_000)
    pet(shop)
    relay_until_idle()
    before = made(shop.get(f"{SHOP}/metrics"))["outbox_metrics"]
    deliveries_skip(ids=[Delivery.objects.get(state="dead").pk], actor="user:ann", reason="too large")

    after = made(shop.get(f"{SHOP}/metrics"))["outbox_metrics"]

    names = ("pending_events", "failed_events", "processed_today")
    assert [before[name] for name in names] == [0, 1, 1]
    assert [after[name] for name in names] == [0, 0, 1]


@pytest.mark.feature("D3", "A16")
def test_it_is_closed_to_strangers(client: Client, shop: Api) -> None:
    for place in ("pets", "orders", "users/u/register"):
        assert client.post(f"{SHOP}/{place}", {}, content_type="application/json").status_code == 401
        assert Api("customers:read").post(f"{SHOP}/{place}", {}).status_code == 403
    for place in ("metrics", "health"):
        assert client.get(f"{SHOP}/{place}").status_code == 401
        assert Api("customers:read").get(f"{SHOP}/{place}").status_code == 403


@pytest.mark.feature("D3", "A16")
def test_people_need_the_permission_of_each_action(shop: Api) -> None:
    clerk = User_.objects.create(username="clerk", is_staff=True)
    clerk.user_permissions.set(Permission.objects.filter(codename__startswith="scope_"))
    client = Client()
    client.force_login(clerk)
    posts = [
        ("pets", TOM, "add_pet"),
        ("orders", {"customer_id": "c", "pet_id": pet(shop)}, "add_order"),
        ("users/u1/register", {"name": "John", "email": "john@example.com"}, "add_user"),
    ]

    for place, body, permission in posts:
        refused = client.post(f"{SHOP}/{place}", body, content_type="application/json")
        clerk.user_permissions.add(Permission.objects.get(codename=permission, content_type__app_label="petstore"))
        client.force_login(clerk)
        allowed = client.post(f"{SHOP}/{place}", body, content_type="application/json")

        assert (place, refused.status_code, allowed.status_code) == (place, 403, 200)


@pytest.mark.feature("D3", "C10")
def test_a_repeated_order_takes_one_pet(shop: Api) -> None:
    body = {"customer_id": "c", "pet_id": pet(shop, stock=2)}

    first, second = (made(shop.post(f"{SHOP}/orders", body, Idempotency_Key="once")) for _ in range(2))

    assert first == second
    assert (Pet.objects.get().stock, Order.objects.count()) == (1, 1)


@pytest.mark.feature("D3")
@pytest.mark.parametrize(
    "query",
    ["?wait_for=abc", "?wait_for=", "?sort=1", "?wait_for=1&wait_for=2"],
)
@pytest.mark.parametrize("place", ["orders", "orders/order_1"])
def test_the_order_book_refuses_what_it_does_not_understand(shop: Api, place: str, query: str) -> None:
    answer = shop.get(f"{SHOP}/{place}{query}")

    assert (answer.status_code, answer["Content-Type"]) == (400, "application/problem+json")


def test_it_is_switched_on_by_a_setting() -> None:
    assert settings.PETSTORE is True
    assert "examples.petstore.order_book.OrderBook" in settings.PROJECTIONS
    # The synchronisation of customers hears nothing of pets.
    assert SyncPokes.topics is not None and "pets" not in SyncPokes.topics
