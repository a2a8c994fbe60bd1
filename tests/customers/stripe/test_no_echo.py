"""Nothing comes back as an echo: both sides change again and again, and the sandbox's log counts every call."""

from __future__ import annotations

import pytest
from django.db import connection

from customers.models import Conflict
from customers.services import customer_create, customer_update
from tests.customers.stripe.conftest import StripeSide

pytestmark = [pytest.mark.django_db, pytest.mark.feature("G3")]

SHORT, LONG = 15, pytest.param(1_000, marks=[pytest.mark.chaos, pytest.mark.timeout(3600)], id="1000")


def events_published() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM outbox_event")
        return int(cursor.fetchone()[0])


@pytest.mark.parametrize("trips", [SHORT, LONG])
def test_it_makes_no_call_beyond_one_look_and_one_push_a_round_trip(stripe_side: StripeSide, trips: int) -> None:
    customer = customer_create(name="Ada", phone="0")
    stripe_side.rest()
    remote_id = stripe_side.state(customer).remote_id or ""
    stripe_side.sandbox.request_log.clear()
    published = events_published()

    for number in range(1, trips + 1):
        customer_update(customer_id=customer.pk, changes={"name": f"Ada {number}"})
        stripe_side.sandbox.customer_edit(remote_id, phone=f"+{number}")
        stripe_side.rest()

    log = stripe_side.sandbox.request_log
    customer.refresh_from_db()
    there = stripe_side.there(customer)
    assert (customer.name, customer.phone) == (there["name"], there["phone"]) == (f"Ada {trips}", f"+{trips}")
    assert len(log.matching("GET *")) == len(log.matching(f"GET /v1/customers/{remote_id}")) == trips
    assert len(log.matching("POST *")) == len(log.matching(f"POST /v1/customers/{remote_id}")) == trips
    assert len(log) == 2 * trips
    # Here one event of the edit and one of what was pulled.
    assert events_published() - published == 2 * trips
    assert not Conflict.objects.exists()


@pytest.mark.parametrize("trips", [SHORT, LONG])
def test_it_writes_nothing_more_when_webhooks_come_late_and_twice(stripe_side: StripeSide, trips: int) -> None:
    customer = customer_create(name="Ada", phone="0")
    stripe_side.rest()
    remote_id = stripe_side.state(customer).remote_id or ""
    stripe_side.sandbox.webhooks.script("duplicate", times=None)
    stripe_side.sandbox.request_log.clear()

    for number in range(1, trips + 1):
        customer_update(customer_id=customer.pk, changes={"name": f"Ada {number}"})
        stripe_side.sandbox.customer_edit(remote_id, phone=f"+{number}")
        stripe_side.poke()
        stripe_side.sync(customer)
        stripe_side.rest()

    log = stripe_side.sandbox.request_log
    assert len(log.writes()) == len(log.matching(f"POST /v1/customers/{remote_id}")) == trips
    # An edit there that is heard of after it was pulled is looked at once more, and nothing is done.
    assert len(log.matching("GET *")) <= 2 * trips
