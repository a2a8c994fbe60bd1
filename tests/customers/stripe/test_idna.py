"""E-mails whose domain has other letters than ASCII's: Unicode here, IDNA there, and no difference between them."""

from __future__ import annotations

import pytest

from customers.emails import email_with_ascii_domain, email_with_unicode_domain
from customers.models import Customer, SyncRequest
from customers.services import customer_create, customer_update
from customers.stripe.mapping import record_of
from customers.sync.health import sync_health
from tests.customers.stripe.conftest import StripeSide

pytestmark = [pytest.mark.feature("G1", "G3"), pytest.mark.django_db]

HERE, THERE = "ada@bücher.example", "ada@xn--bcher-kva.example"


@pytest.mark.parametrize(
    ("here", "there"),
    [
        (HERE, THERE),
        ("Ada@straße.example", "Ada@xn--strae-oqa.example"),
        ("ö@bücher.example", "ö@xn--bcher-kva.example"),
        ("ada@example.com", "ada@example.com"),
        ("ada@xn--a", "ada@xn--a"),
        ("none", "none"),
        ("", ""),
    ],
)
def test_both_spellings_lead_to_each_other(here: str, there: str) -> None:
    assert email_with_ascii_domain(here) == there
    assert email_with_unicode_domain(there) == here
    assert email_with_unicode_domain(email_with_unicode_domain(there)) == here


def test_it_brings_one_to_stripe_and_sees_no_difference_afterwards(stripe_side: StripeSide) -> None:
    customer = customer_create(name="Ada", email=HERE)
    stripe_side.rest()
    writes = stripe_side.writes()
    customer_update(customer_id=customer.pk, changes={"name": "Ada L."})
    stripe_side.rest()
    stripe_side.sandbox.customer_edit(stripe_side.state(customer).remote_id or "", phone="1")
    stripe_side.rest()

    state = stripe_side.state(customer)
    assert (state.status, state.base["email"]) == ("in_sync", HERE)
    assert stripe_side.there(customer)["email"] == THERE
    assert (len(writes), len(stripe_side.writes())) == (1, 2)
    assert SyncRequest.objects.latest("pk").body == {"name": "Ada L."}
    (one,) = sync_health(customer_id=customer.pk, live=True)["integrations"].values()
    assert (one["drift"]["remote"], one["drift"]["fields"]) == ("present", [])
    customer.refresh_from_db()
    assert (customer.email, customer.phone) == (HERE, "1")


def test_it_imports_one_from_stripe_as_it_is_kept_here(stripe_side: StripeSide) -> None:
    stripe_side.sandbox.customer_add(name="Ada", email=THERE)
    stripe_side.rest()

    assert Customer.objects.get().email == HERE
    assert stripe_side.writes() == []


def test_it_follows_a_change_to_one_and_back(stripe_side: StripeSide) -> None:
    customer = customer_create(name="Ada", email="ada@example.com")
    stripe_side.rest()
    remote_id = stripe_side.state(customer).remote_id or ""

    stripe_side.sandbox.customer_edit(remote_id, email=THERE)
    stripe_side.rest()
    customer.refresh_from_db()
    pulled = customer.email
    customer_update(customer_id=customer.pk, changes={"email": "ada@école.example"})
    stripe_side.rest()

    assert pulled == HERE
    assert stripe_side.there(customer)["email"] == "ada@xn--cole-9oa.example"
    assert len(stripe_side.writes()) == 2


def test_it_finds_its_own_create_again_when_the_key_is_too_old(stripe_side: StripeSide) -> None:
    customer = customer_create(name="Ada", email=HERE)
    stripe_side.poke()
    stripe_side.sandbox.faults.add(route="POST /v1/customers", effect="reset", phase="after")
    stripe_side.sync(customer)
    SyncRequest.objects.update(first_sent_at="2020-01-01T00:00:00Z")

    stripe_side.rest()

    assert len(stripe_side.sandbox.customers) == 1
    assert SyncRequest.objects.get().outcome == "adopted"
    assert stripe_side.state(customer).status == "in_sync"
    listed = stripe_side.sandbox.request_log.matching("GET /v1/customers")
    assert [line.params["email"] for line in listed if "email" in line.params] == [THERE]


def test_it_leaves_what_is_no_domain_of_that_kind() -> None:
    assert record_of({"id": "cus_1", "email": "a@XN--BCHER-KVA.Example"}).fields["email"] == "a@bücher.example"
    assert record_of({"id": "cus_1", "email": "a@xn--.example"}).fields["email"] == "a@xn--.example"
    assert "email" not in record_of({"id": "cus_1", "email": None}).fields
