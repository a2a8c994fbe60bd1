from __future__ import annotations

import threading
from functools import partial
from uuid import uuid4

import pytest
from django.db import transaction

from customers.errors import CustomerDeleted, CustomerNotFound, EmailTaken, VersionMismatch
from customers.models import Customer
from customers.services import customer_create, customer_delete, customer_update
from tests.customers.published import published
from tests.customers.races import in_threads, wait_until_somebody_waits_for_me

pytestmark = [pytest.mark.feature("A9", "D2"), pytest.mark.django_db(transaction=True)]


def test_it_writes_the_row_and_its_event_together() -> None:
    customer = customer_create(
        name="Ann", email="ann@example.com", phone=None, address={"city": "Bonn"}, metadata={"plan": "gold"}
    )

    row = Customer.objects.get()
    assert (row.pk, row.name, row.version, row.created_at) == (customer.pk, "Ann", 1, row.updated_at)
    [event] = published()
    assert (event.type, event.aggregate_id, event.sequence) == ("customer.created", str(customer.pk), 1)
    assert (event.topic, event.origin, event.headers) == ("customers", "api", {"priority": "interactive"})
    assert event.payload == {
        "customer_id": str(customer.pk),
        "email": "ann@example.com",
        "name": "Ann",
        "phone": None,
        "address": {"city": "Bonn"},
        "metadata": {"plan": "gold"},
        "version": 1,
        "deleted": False,
        "changed": ["name", "email", "address", "metadata"],
        "updated_at": row.updated_at.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
    }


def test_it_leaves_neither_row_nor_event_when_the_outer_transaction_rolls_back() -> None:
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        customer_create(name="Ann", email="ann@example.com")
        raise ZeroDivisionError

    assert (Customer.objects.count(), published()) == (0, [])


def test_it_leaves_no_event_when_the_email_is_taken() -> None:
    customer_create(name="Ann", email="ann@example.com")

    with pytest.raises(EmailTaken):
        customer_create(name="Other", email="ANN@example.com")

    assert (Customer.objects.count(), len(published())) == (1, 1)


def test_it_changes_only_what_differs_and_says_so() -> None:
    customer = customer_create(name="Ann", email="ann@example.com", metadata={"a": "1"})

    changed = customer_update(
        customer_id=customer.pk,
        changes={"name": "Anne", "email": "ann@example.com", "metadata": {"a": "1"}},
        origin="stripe",
        priority="bulk",
    )

    assert (changed.name, changed.version) == ("Anne", 2)
    assert changed.updated_at > customer.updated_at
    event = published()[-1]
    assert (event.type, event.sequence, event.origin) == ("customer.updated", 2, "stripe")
    assert (event.payload["changed"], event.payload["version"]) == (["name"], 2)
    assert event.headers == {"priority": "bulk"}


def test_it_writes_and_publishes_nothing_when_nothing_differs() -> None:
    customer = customer_create(name="Ann", email="ann@example.com")

    same = customer_update(customer_id=customer.pk, changes={"name": "Ann", "address": {}})

    assert (same.version, same.updated_at) == (1, Customer.objects.get().updated_at)
    assert len(published()) == 1


def test_it_refuses_a_change_of_an_older_version() -> None:
    customer = customer_create(name="Ann", email="ann@example.com")
    customer_update(customer_id=customer.pk, changes={"name": "Anne"}, if_version=1)

    with pytest.raises(VersionMismatch):
        customer_update(customer_id=customer.pk, changes={"name": "Late"}, if_version=1)
    with pytest.raises(VersionMismatch):
        customer_delete(customer_id=customer.pk, if_version={1, 7})

    assert (Customer.objects.get().name, len(published())) == ("Anne", 2)


def test_it_deletes_for_good_and_frees_the_email() -> None:
    customer = customer_create(name="Ann", email="ann@example.com")

    customer_delete(customer_id=customer.pk, if_version=1)

    row = Customer.objects.get()
    assert (row.version, row.deleted_at is not None) == (2, True)
    event = published()[-1]
    assert (event.type, event.payload["deleted"], event.payload["changed"]) == ("customer.deleted", True, ["deleted"])
    with pytest.raises(CustomerDeleted):
        customer_delete(customer_id=customer.pk)
    with pytest.raises(CustomerDeleted):
        customer_update(customer_id=customer.pk, changes={"name": "Back"})
    assert customer_create(name="Ann", email="ann@example.com").pk != customer.pk


def test_it_knows_no_customer_that_never_was() -> None:
    with pytest.raises(CustomerNotFound):
        customer_update(customer_id=uuid4(), changes={"name": "Nobody"})
    with pytest.raises(CustomerNotFound):
        customer_delete(customer_id=uuid4())


@pytest.mark.feature("C3")
def test_it_lets_one_of_many_racing_writers_have_an_email() -> None:
    spellings = ["race@example.com", "Race@example.com", "RACE@example.com", "rAcE@example.com"]

    errors = in_threads(*(partial(customer_create, name="Racer", email=email) for email in spellings))

    assert [type(error) for error in errors] == [EmailTaken] * 3
    assert (Customer.objects.count(), len(published())) == (1, 1)


@pytest.mark.feature("C3")
def test_it_waits_for_an_uncommitted_twin_and_takes_the_email_if_that_is_rolled_back() -> None:
    inserted, waiting = threading.Event(), threading.Event()

    def first() -> None:
        with transaction.atomic():
            customer_create(name="First", email="twin@example.com")
            inserted.set()
            waiting.wait(timeout=60)
            wait_until_somebody_waits_for_me()
            transaction.set_rollback(True)

    def second() -> None:
        inserted.wait(timeout=60)
        waiting.set()
        customer_create(name="Second", email="TWIN@example.com")

    errors = in_threads(first, second)

    assert errors == []
    assert [row.name for row in Customer.objects.all()] == ["Second"]


@pytest.mark.feature("C1")
def test_it_lets_two_writers_of_one_customer_take_turns() -> None:
    customer = customer_create(name="Ann", email="ann@example.com")

    errors = in_threads(
        *(partial(customer_update, customer_id=customer.pk, changes={"name": f"Name {n}"}) for n in range(4))
    )

    assert errors == []
    assert Customer.objects.get().version == 5
    assert [(event.sequence, event.payload["version"]) for event in published()] == [(n, n) for n in range(1, 6)]


@pytest.mark.feature("C1")
def test_it_gives_a_version_to_one_of_two_writers_that_both_read_it() -> None:
    customer = customer_create(name="Ann", email="ann@example.com")

    errors = in_threads(
        *(
            partial(customer_update, customer_id=customer.pk, changes={"name": name}, if_version=1)
            for name in ("One", "Two")
        )
    )

    assert [type(error) for error in errors] == [VersionMismatch]
    assert (Customer.objects.get().version, len(published())) == (2, 2)
