from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from customers.services import customer_create, customer_delete
from outbox.errors import ErrorClass
from outbox.models import Delivery, Replacement, StoredEvent
from outbox.relay import relay_until_idle
from projections.models import Failure
from projections.runner import projections_run_once
from tests.operations.conftest import api, issued
from tests.outbox.collecting import Collector, refusing
from tests.outbox.conftest import collector
from tests.projections.cleaning import builds_drop

__all__ = ["api", "collector", "issued"]
pytestmark = [pytest.mark.feature("D10", "H4", "A16"), pytest.mark.django_db(transaction=True)]


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
