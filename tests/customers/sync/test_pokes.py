"""From the log to dirty rows."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from django.db import connection, transaction
from django.utils import timezone

from customers.models import Priority, SyncState
from customers.services import customer_create, customer_update
from customers.sync.lease import lease_take
from customers.sync.pokes import SyncPokes
from outbox.subscribers import Deadline
from tests.customers.sync.conftest import Side


@pytest.mark.feature("G1", "C12")
@pytest.mark.django_db
def test_it_marks_one_row_for_many_events_of_one_customer(side: Side) -> None:
    customer = customer_create(name="Ada")
    for number in range(5):
        customer_update(customer_id=customer.pk, changes={"name": f"Ada {number}"})

    side.poke()

    state = SyncState.objects.get()
    assert (state.customer_id, state.status, state.poke_count) == (customer.pk, "pending", 1)
    assert state.dirty_at is not None


@pytest.mark.feature("G3")
@pytest.mark.django_db
def test_it_leaves_out_what_came_from_the_integration_itself(side: Side) -> None:
    customer_create(name="Ada", origin="memory")
    mine = customer_create(name="Grace", origin="another")

    side.poke()

    assert [state.customer_id for state in SyncState.objects.all()] == [mine.pk]


@pytest.mark.feature("G5")
@pytest.mark.django_db
def test_it_takes_the_class_from_the_event_and_never_lowers_it(side: Side) -> None:
    bulk = customer_create(name="Bulk", priority="bulk")
    both = customer_create(name="Both")
    customer_update(customer_id=both.pk, changes={"name": "Both 2"}, priority="bulk")
    side.poke()
    customer_update(customer_id=both.pk, changes={"name": "Both 3"}, priority="bulk")
    side.poke()

    assert side.state(bulk).priority == Priority.BULK
    assert side.state(both).priority == Priority.INTERACTIVE


@pytest.mark.feature("C12")
@pytest.mark.django_db
def test_it_makes_a_waiting_row_due_for_a_person_but_not_for_a_bulk_poke(side: Side) -> None:
    customer = customer_create(name="Ada")
    side.poke()
    later = timezone.now() + timedelta(hours=1)
    SyncState.objects.update(next_attempt_at=later, status="retrying")

    customer_update(customer_id=customer.pk, changes={"name": "bulk"}, priority="bulk")
    side.poke()
    after_bulk = side.state(customer).next_attempt_at
    customer_update(customer_id=customer.pk, changes={"name": "person"})
    side.poke()

    assert after_bulk == later
    assert side.state(customer).next_attempt_at < timezone.now()


@pytest.mark.feature("C1")
@pytest.mark.django_db
def test_it_does_not_make_a_row_due_that_somebody_works_on(side: Side) -> None:
    customer = customer_create(name="Ada")
    side.poke()
    lease = lease_take(side.state(customer).pk, seconds=60)

    customer_update(customer_id=customer.pk, changes={"name": "Ada L."})
    side.poke()

    state = side.state(customer)
    assert lease is not None
    assert state.poke_count == lease.poke_count + 1
    assert state.next_attempt_at > timezone.now() + timedelta(seconds=50)


@pytest.mark.feature("C8")
@pytest.mark.django_db(transaction=True)
def test_it_inserts_one_row_when_two_relays_poke_at_the_same_moment(side: Side) -> None:
    customers = [customer_create(name=f"Ada {number}") for number in range(20)]
    events = side.events()
    gate = threading.Barrier(2)

    def relay(batch: list[object]) -> None:
        with transaction.atomic():
            gate.wait(60)
            SyncPokes().deliver(batch, Deadline.after(10))  # type: ignore[arg-type]
        connection.close()

    threads = [threading.Thread(target=relay, args=(batch,)) for batch in (events, events[::-1])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert SyncState.objects.count() == len(customers)
    assert set(SyncState.objects.values_list("poke_count", flat=True)) == {2}
