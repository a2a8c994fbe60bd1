"""A create whose outcome is not known, in accounts of any size."""

from __future__ import annotations

from datetime import timedelta

import orjson
import pytest
from django.db.models import F

from customers.models import Customer, SyncRequest, SyncState
from customers.services import customer_create
from customers.stripe import finding
from customers.stripe.signatures import message_read
from customers.sync import lookup
from customers.sync.engine import Outcome
from tests.customers.stripe.conftest import StripeSide

pytestmark = [pytest.mark.feature("G1", "C5"), pytest.mark.django_db]

LARGE = 10_500


def created_in_doubt(side: StripeSide, *, phase: str, email: str | None = None) -> Customer:
    """A customer whose create was lost before or after it had its effect, and whose key is not trusted any more."""
    customer = customer_create(name="Ada", email=email)
    side.poke()
    side.sandbox.faults.add(route="POST /v1/customers", effect="reset", phase=phase)
    side.sync(customer)
    SyncRequest.objects.update(first_sent_at=F("first_sent_at") - timedelta(hours=25))
    side.sandbox.webhooks.pending()
    side.sandbox.request_log.clear()
    return customer


def ours(side: StripeSide, customer: Customer) -> list[str]:
    """Ids of the living customers there that carry our customer's id."""
    everybody = side.sandbox.customers.values()
    return [found["id"] for found in everybody if found["metadata"].get("zenskar_id") == str(customer.pk)]


def pages_read(side: StripeSide) -> int:
    return len(side.sandbox.request_log.matching("GET /v1/customers"))


def test_it_finds_our_record_by_its_email_however_many_were_created_since(stripe_side: StripeSide) -> None:
    customer = created_in_doubt(stripe_side, phase="after", email="ann@example.com")
    stripe_side.sandbox.customers_fill(LARGE)

    stripe_side.rest()

    assert [stripe_side.state(customer).remote_id] == ours(stripe_side, customer)
    assert pages_read(stripe_side) == 1


def test_it_finds_our_record_without_an_email_behind_ten_thousand_that_search_has_not_seen(
    stripe_side: StripeSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookup, "_BUDGET", 600.0)
    customer = created_in_doubt(stripe_side, phase="after")
    stripe_side.sandbox.customers_fill(LARGE)

    stripe_side.rest()

    assert [stripe_side.state(customer).remote_id] == ours(stripe_side, customer)
    assert stripe_side.state(customer).status == SyncState.Status.IN_SYNC
    assert SyncRequest.objects.get().outcome == SyncRequest.Outcome.ADOPTED
    assert pages_read(stripe_side) == LARGE // 100 + 1


def test_it_creates_once_when_it_has_looked_through_all_and_none_is_ours(stripe_side: StripeSide) -> None:
    customer = created_in_doubt(stripe_side, phase="before")
    stripe_side.sandbox.customers_fill(500)

    stripe_side.rest()

    assert [stripe_side.state(customer).remote_id] == ours(stripe_side, customer)
    assert [request.generation for request in SyncRequest.objects.order_by("id")] == [1, 2]


def test_it_reads_no_long_list_when_search_knows_our_record(
    stripe_side: StripeSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stripe_side.sandbox.search, "lag", 0.0)
    customer = created_in_doubt(stripe_side, phase="after")
    stripe_side.sandbox.customers_fill(1_000)

    stripe_side.rest()

    assert [stripe_side.state(customer).remote_id] == ours(stripe_side, customer)
    assert pages_read(stripe_side) == 0


def test_it_takes_the_word_of_search_for_what_search_must_have_seen(
    stripe_side: StripeSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finding, "SEARCH_LAG", timedelta(minutes=-1))
    monkeypatch.setattr(finding, "CERTAIN_PAGES", 2)
    customer = created_in_doubt(stripe_side, phase="before")
    stripe_side.sandbox.customers_fill(1_000)

    stripe_side.rest()

    assert len(ours(stripe_side, customer)) == 1
    assert pages_read(stripe_side) == 2


@pytest.mark.parametrize("phase", ["before", "after"])
def test_it_goes_on_where_it_was_when_its_time_is_over_or_a_page_fails(
    stripe_side: StripeSide, monkeypatch: pytest.MonkeyPatch, phase: str
) -> None:
    customer = created_in_doubt(stripe_side, phase=phase)
    stripe_side.sandbox.customers_fill(1_000, per_second=20)
    monkeypatch.setattr(lookup, "_BUDGET", 0.0)
    stripe_side.sandbox.faults.add(route="GET /v1/customers", effect="status", times=2, skip=4)

    outcomes = [stripe_side.sync(customer) for _ in range(30)]

    assert outcomes.count(Outcome.FAILED) == 2
    assert outcomes[0] is Outcome.PUT_OFF
    assert len(ours(stripe_side, customer)) == 1
    assert stripe_side.state(customer).remote_id == ours(stripe_side, customer)[0]
    # Each page once, once more after each end, and what an end leaves half read.
    assert pages_read(stripe_side) <= 2 * 11 + 2


@pytest.mark.parametrize("route", ["GET /v1/customers", "GET /v1/customers/search"])
def test_it_never_creates_while_the_look_up_fails(stripe_side: StripeSide, route: str) -> None:
    customer = created_in_doubt(stripe_side, phase="after")
    stripe_side.sandbox.faults.add(route=route, effect="status", times=3)

    outcomes = [stripe_side.sync(customer) for _ in range(3)]
    created = len(ours(stripe_side, customer))
    stripe_side.rest()

    assert (outcomes, created) == ([Outcome.FAILED] * 3, 1)
    assert [stripe_side.state(customer).remote_id] == ours(stripe_side, customer)


@pytest.mark.feature("G2")
@pytest.mark.parametrize("remote_id", ["../../v1/customers", "cus_1?x", "cus 1", "", "cus_1\n"])
def test_it_takes_no_id_that_could_lead_elsewhere(remote_id: str) -> None:
    event = {"id": "evt_1", "object": "event", "type": "customer.updated", "livemode": False}
    body = orjson.dumps({**event, "data": {"object": {"id": remote_id, "object": "customer"}}})

    message = message_read(body)

    assert (message.remote_id, message.ignore) == ("", "names no customer")
