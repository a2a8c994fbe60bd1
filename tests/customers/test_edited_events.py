from __future__ import annotations

import threading
from typing import Any

import orjson
import pytest
from django.db import connection, transaction
from django.test import Client

from customers.erasing.services import customer_erase
from customers.models import Customer
from customers.services import customer_create, customer_delete
from outbox.errors import DecisionRefused, ErrorClass
from outbox.models import Delivery, Replacement, StoredEvent
from outbox.relay import relay_until_idle
from outbox.replacing import delivery_replace
from projections.models import Failure
from projections.runner import projections_run_once
from tests.customers.erasing.searching import places_of
from tests.customers.races import in_threads, wait_until_somebody_waits_for_me
from tests.customers.test_console import staff
from tests.operations.conftest import api, issued
from tests.outbox.collecting import Collector, refusing
from tests.outbox.conftest import collector
from tests.projections.cleaning import builds_drop

__all__ = ["api", "collector", "issued"]
pytestmark = [pytest.mark.feature("D10", "H4", "A16"), pytest.mark.django_db(transaction=True)]

WORDS = ("ada@example.com", "quimby")


@pytest.fixture
def dead(collector: Collector) -> Delivery:
    """A customer's first event that its subscriber refused."""
    customer = customer_create(name="Ada", email="ada@example.com", metadata={"plan": "gold"})
    collector.refuse = refusing(str(customer.pk), error_class=ErrorClass.PERMANENT)
    relay_until_idle()
    return Delivery.objects.get()


def replace(api: Client, dead: Delivery, payload: Any) -> Any:
    body = {"reason": "typo", "payload": payload}
    return api.post(f"/api/v1/admin/outbox/deliveries/{dead.pk}/replace", body, "application/json")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"customer_id": "01a1bcd1-0000-7000-8000-000000000000"}, "customer_id"),
        ({"customer_id": None}, "customer_id"),
        ({"version": 99}, "version"),
        ({"version": None}, "version"),
        ({"version": True}, "version"),
        ({"version": 1.0}, "version"),
        ({"deleted": True}, "deleted"),
        ({"deleted": None}, "deleted"),
        ({"deleted": 0}, "deleted"),
        ({"email": ""}, "email"),
        ({"email": 7}, "email"),
        ({"name": "x" * 257}, "name"),
        ({"phone": ["1"]}, "phone"),
        ({"address": {}}, "address"),
        ({"address": {"planet": "Mars"}}, "address"),
        ({"address": {"city": None}}, "address"),
        ({"metadata": None}, "metadata"),
        ({"metadata": {"plan": 1}}, "metadata"),
        ({"metadata": {"zenskar_id": "x"}}, "metadata"),
        ({"changed": None}, "changed"),
        ({"changed": ["colour"]}, "changed"),
        ({"changed": [["name"]]}, "changed"),
        ({"updated_at": None}, "updated_at"),
        ({"updated_at": "soon"}, "updated_at"),
        ({"updated_at": "2026-13-01T12:00:00.000000Z"}, "updated_at"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_it_refuses_what_is_no_event_of_this_customer(
    api: Client, dead: Delivery, changes: dict[str, Any], named: str
) -> None:
    answer = replace(api, dead, {**dead.envelope["payload"], **changes})

    assert answer.status_code == 400
    assert named in answer.json()["detail"]
    assert not Replacement.objects.exists()
    assert StoredEvent.objects.count() == 1


def test_it_refuses_nothing_but_nulls_and_a_field_that_is_missing(api: Client, dead: Delivery) -> None:
    payload = dead.envelope["payload"]
    without = {name: value for name, value in payload.items() if name != "metadata"}

    answers = [replace(api, dead, dict.fromkeys(payload)), replace(api, dead, without)]

    assert [answer.status_code for answer in answers] == [400, 400]


def test_it_publishes_what_an_operator_mended_and_read_models_take_it(api: Client, dead: Delivery) -> None:
    builds_drop("customers_directory", "customers_activity")
    changes = {"email": None, "name": "Ada L.", "address": {"city": "London"}, "changed": ["name"]}

    answer = replace(api, dead, {**dead.envelope["payload"], **changes})
    projections_run_once()

    assert answer.status_code == 201
    assert not Failure.objects.exists()
    builds_drop("customers_directory", "customers_activity")


def test_a_deletion_can_be_mended_too(api: Client, collector: Collector) -> None:
    customer = customer_create(name="Ada")
    relay_until_idle()
    collector.refuse = refusing(str(customer.pk), error_class=ErrorClass.PERMANENT)
    customer_delete(customer_id=customer.pk)
    relay_until_idle()
    delivery = Delivery.objects.get()

    answer = replace(api, delivery, {**delivery.envelope["payload"], "name": "Bob"})

    assert answer.status_code == 201


def whole(payload: dict[str, Any]) -> dict[str, Any]:
    """The person again, in the shape of an event that nobody redacted."""
    return {name: value for name, value in payload.items() if name != "erased"} | {"name": "Ada Quimby"}


def test_it_brings_no_erased_customer_back(api: Client, dead: Delivery) -> None:
    customer_erase(customer_id=Customer.objects.get().pk, actor="tests")
    dead.refresh_from_db()
    events = StoredEvent.objects.count()

    answers = [replace(api, dead, whole(dead.envelope["payload"])), replace(api, dead, {"colour": "red"})]
    dead.refresh_from_db()

    for answer in answers:
        assert (answer.status_code, answer["Content-Type"]) == (409, "application/problem+json")
        assert "was erased" in answer.json()["detail"]
    assert dead.state == "dead"
    assert StoredEvent.objects.count() == events
    assert not Replacement.objects.exists()


def test_it_brings_nobody_back_in_the_console(dead: Delivery) -> None:
    customer_erase(customer_id=Customer.objects.get().pk, actor="tests")
    dead.refresh_from_db()
    events = StoredEvent.objects.count()
    form = {"reason": "typo", "payload": orjson.dumps(whole(dead.envelope["payload"])).decode()}

    page = staff("admin").post(f"/admin/outbox/delivery/{dead.pk}/do/replace/", form, follow=True)

    assert "The customer was erased" in page.content.decode()
    assert StoredEvent.objects.count() == events


def test_it_waits_for_an_erasure_and_then_brings_nobody_back(dead: Delivery) -> None:
    customer = Customer.objects.get()
    payload = whole(dead.envelope["payload"])

    def erase() -> None:
        with transaction.atomic():
            customer_erase(customer_id=customer.pk, actor="tests")
            begun.set()
            wait_until_somebody_waits_for_me()

    def edit() -> None:
        begun.wait(60)
        delivery_replace(delivery_id=dead.pk, payload=payload, actor="tests", reason="typo")

    begun = threading.Event()
    connection.close()
    errors = in_threads(erase, edit)

    assert [type(error) for error in errors] == [DecisionRefused]
    assert StoredEvent.objects.order_by("-sequence")[0].type == "customer.erased"
    assert places_of(WORDS) == []


def test_an_erasure_waits_for_it_and_redacts_what_it_published(dead: Delivery) -> None:
    customer = Customer.objects.get()
    payload = whole(dead.envelope["payload"])

    def edit() -> None:
        with transaction.atomic():
            delivery_replace(delivery_id=dead.pk, payload=payload, actor="tests", reason="typo")
            begun.set()
            wait_until_somebody_waits_for_me()

    def erase() -> None:
        begun.wait(60)
        customer_erase(customer_id=customer.pk, actor="tests")

    begun = threading.Event()
    connection.close()
    errors = in_threads(edit, erase)

    assert errors == []
    types = [event.type for event in StoredEvent.objects.order_by("sequence")]
    assert types == ["customer.created", "customer.created", "customer.deleted", "customer.erased"]
    assert places_of(WORDS) == []
