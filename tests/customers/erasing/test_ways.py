"""The ways to erase somebody: API, command, console."""

from __future__ import annotations

import json
from io import StringIO
from uuid import uuid4

import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from pytest_django import Settings

from customers.models import Customer, Erasure
from customers.services import customer_create
from customers.stripe.client import stripe_client
from customers.stripe.conf import stripe_settings
from operations.models import AuditEntry
from outbox.relay import relay_until_idle
from projections.runner import projections_run_once
from tests.customers.conftest import Api
from tests.customers.erasing.searching import places_of
from tests.customers.stripe.conftest import StripeSide
from tests.customers.test_console import staff
from tests.outbox.collecting import Collector

pytestmark = [pytest.mark.feature("H8"), pytest.mark.django_db(transaction=True)]

LIST = "/admin/customers/customer/"


@pytest.fixture
def officer(db: None) -> Api:
    return Api("customers:read", "customers:erase")


def quimby() -> Customer:
    return customer_create(name="Zuzanna Quimby", email="zuzanna@quimby.example")


def gone() -> bool:
    return places_of(["quimby"]) == []


def test_it_erases_through_the_api_and_tells_how_far_it_has_come(
    officer: Api, stripe_side: StripeSide, collector: Collector
) -> None:
    url = f"/api/v1/customers/{quimby().pk}/erasure/"

    before = officer.get(url)
    begun = officer.post(url, None, Idempotency_Key="k")
    repeated = officer.post(url, None, Idempotency_Key="k")
    relay_until_idle()
    stripe_side.rest()
    projections_run_once()
    again = officer.post(url, {})
    told = officer.get(url)

    assert (before.status_code, before.json()["code"]) == (404, "not_found")
    assert (begun.status_code, begun.json()["state"]) == (202, "erasing")
    assert begun.json()["waits_for"] != []
    assert repeated.content == begun.content
    assert (again.status_code, again.json()["state"], again.json()["waits_for"]) == (200, "erased", [])
    assert told.json() == again.json()
    assert officer.get(url.removesuffix("erasure/")).status_code == 410
    assert gone()


def test_it_is_closed_to_those_without_the_right(api: Api, reader: Api) -> None:
    customer = quimby()
    url = f"/customers/{customer.pk}/erasure"

    answers = [client.post(url, None) for client in (api, reader)]
    operator = staff("operator")
    as_person = operator.post(url, content_type="application/json")
    action = operator.post(LIST, {"action": "erase", "_selected_action": [str(customer.pk)], "confirmed": "yes"})

    assert [answer.status_code for answer in (*answers, as_person)] == [403, 403, 403]
    assert action.status_code in (200, 302)
    assert Customer.objects.get().name == "Zuzanna Quimby"


@pytest.mark.parametrize("body", [b"[1]", b'{"reason": "x"}', b"{"])
def test_it_refuses_a_body_that_says_something(officer: Api, body: bytes) -> None:
    customer = quimby()

    answer = officer("POST", f"/api/v1/customers/{customer.pk}/erasure/", body)

    assert (answer.status_code, answer["Content-Type"]) == (400, "application/problem+json")
    assert not Erasure.objects.exists()


def test_it_does_not_know_whom_it_never_had(officer: Api) -> None:
    for name in (str(uuid4()), "nobody"):
        answer = officer.post(f"/api/v1/customers/{name}/erasure/", None)

        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_it_erases_by_command_when_it_is_told_to(stripe_side: StripeSide, collector: Collector) -> None:
    customer = quimby()
    out = StringIO()

    call_command("customer_erase", str(customer.pk), stdout=out)
    untouched = Customer.objects.get().name
    call_command("customer_erase", str(customer.pk), "--apply", stdout=out)
    relay_until_idle()
    stripe_side.rest()
    projections_run_once()
    told = StringIO()
    call_command("customer_erase", str(customer.pk), "--apply", "--json", stdout=told)
    call_command("customer_erase", str(customer.pk), stdout=out)

    dry, begun, asked = out.getvalue().splitlines()
    assert "would be erased for good. Add --apply." in dry
    assert "quimby" not in out.getvalue().lower()
    assert untouched == "Zuzanna Quimby"
    assert "waits for" in begun
    assert asked == f"Customer {customer.pk} is erased; nothing can bring the data back."
    assert json.loads(told.getvalue())["state"] == "erased"
    assert gone()
    with pytest.raises(CommandError, match="no such customer"):
        call_command("customer_erase", str(uuid4()))
    with pytest.raises(CommandError, match="no such customer"):
        call_command("customer_erase", str(uuid4()), "--apply")


@pytest.mark.feature("F3")
def test_it_erases_in_the_console_after_a_question(stripe_side: StripeSide, collector: Collector) -> None:
    customer = quimby()
    admin: Client = staff("admin")
    page = f"{LIST}{customer.pk}/change/"
    form = {"action": "erase", "_selected_action": [str(customer.pk)], "from_page": "yes"}

    offered = admin.get(page).content.decode()
    asked = admin.post(LIST, form)
    untouched = Customer.objects.get().name
    done = admin.post(LIST, {**form, "confirmed": "yes"}, follow=True).content.decode()
    listed = admin.get("/admin/customers/erasure/?progress=waits").content.decode()
    shown = admin.get(f"/admin/customers/erasure/{customer.pk}/change/").content.decode()

    assert "Erase personal data…" in offered
    assert "Erase the personal data of 1 customer?" in asked.content.decode()
    assert untouched == "Zuzanna Quimby"
    assert "Erased 1 of 1 customer." in done
    assert "Erase personal data…" not in done
    assert "stripe" not in listed or "to be deleted" in listed
    assert "collector: pending in the log" in shown
    entry = AuditEntry.objects.get(action="customer.erased")
    assert (entry.actor, entry.target) == ("user:admin-person", f"customer:{customer.pk}")
    assert "quimby" not in json.dumps(entry.detail).lower()


def test_it_shows_erasures_to_whoever_may_view_and_lets_nobody_change_them() -> None:
    for role in ("viewer", "operator", "admin"):
        client = staff(role)

        assert client.get("/admin/customers/erasure/").status_code == 200
        assert client.get("/admin/customers/erasure/add/").status_code == 403


@pytest.fixture
def subscriber(stripe_side: StripeSide) -> Customer:
    """Somebody with a subscription."""
    customer = quimby()
    stripe_side.rest()
    client = stripe_client(stripe_settings())
    whom = stripe_side.state(customer).remote_id or ""
    client.v1.subscriptions.create({"customer": whom, "items": [{"price": "price_gold"}]})
    return customer


def test_the_api_asks_again_while_a_subscription_is_live(officer: Api, subscriber: Customer) -> None:
    url = f"/api/v1/customers/{subscriber.pk}/erasure/"

    refused = officer.post(url, None, Idempotency_Key="k")
    active = Customer.objects.get(pk=subscriber.pk).deleted_at is None
    wrong = officer.post(url, {"despite_obstacles": "maybe"})
    begun = officer.post(url, {"despite_obstacles": True}, Idempotency_Key="other")

    assert (refused.status_code, refused.json()["code"], active) == (409, "erasure_obstructed", True)
    assert "1 live subscription" in refused.json()["detail"]
    assert wrong.status_code == 400
    assert begun.status_code == 202
    assert Erasure.objects.filter(pk=subscriber.pk).exists()


def test_the_command_asks_again_while_a_subscription_is_live(subscriber: Customer) -> None:
    shown = StringIO()

    call_command("customer_erase", str(subscriber.pk), stdout=shown)
    with pytest.raises(CommandError, match="live subscription"):
        call_command("customer_erase", str(subscriber.pk), "--apply")
    refused = not Erasure.objects.exists()
    call_command("customer_erase", str(subscriber.pk), "--apply", "--despite-obstacles", stdout=StringIO())

    assert "--despite-obstacles" in shown.getvalue()
    assert refused
    assert Erasure.objects.filter(pk=subscriber.pk).exists()


def test_the_console_asks_again_while_a_subscription_is_live(subscriber: Customer) -> None:
    client = staff("admin")
    asked = {"action": "erase", "_selected_action": [str(subscriber.pk)]}

    page = client.post(LIST, asked)
    refused = client.post(LIST, {**asked, "confirmed": "yes"}, follow=True)
    kept = not Erasure.objects.exists()
    client.post(LIST, {**asked, "confirmed": "yes", "despite_obstacles": "yes"})

    assert b"1 live subscription" in page.content
    assert b"Not erased" in refused.content
    assert kept
    assert Erasure.objects.filter(pk=subscriber.pk).exists()


def test_an_integration_that_does_not_answer_stands_in_nobodys_way(
    officer: Api, subscriber: Customer, stripe_side: StripeSide, settings: Settings
) -> None:
    """Unless it would delete whatever hangs on the record."""
    stripe_side.sandbox.faults.add(route="GET /v1/subscriptions", effect="reset", times=100)
    url = f"/api/v1/customers/{subscriber.pk}/erasure/"

    settings.STRIPE_DELETE_POLICY = "delete"
    unknown = officer.post(url, None)
    settings.STRIPE_DELETE_POLICY = "refuse"
    begun = officer.post(url, None)

    assert (unknown.status_code, begun.status_code) == (409, 202)
    assert "could not be asked" in unknown.json()["detail"]
