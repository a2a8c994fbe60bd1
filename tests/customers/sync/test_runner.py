"""Taking what is due: by class, by age, each row once."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from django.db import connection
from django.utils import timezone

from customers.models import Priority, SyncState
from customers.services import customer_create
from customers.sync.engine import sync_leased
from customers.sync.lease import CLAIM_SQL, Lease, LeaseLost, lease_claim, lease_locked, lease_renew, lease_take
from customers.sync.runner import sync_due_once
from tests.customers.sync.conftest import Side
from tests.customers.sync.memory import Call, World

# Serves the test of the plan: one row in fifty is dirty, one in five hundred due.
FILL_SQL = """
INSERT INTO customers_syncstate (integration, account, livemode, remote_id, status, dirty_at, next_attempt_at)
SELECT 'memory', '', false, 'r' || n, CASE WHEN n % 50 = 0 THEN 'retrying' ELSE 'in_sync' END,
       CASE WHEN n % 50 = 0 THEN now() END, now() + CASE WHEN n % 500 = 0 THEN -1 ELSE 1 END * interval '1 hour'
  FROM generate_series(1, 20000) n
"""


def claim(limit: int = 10, priority: Priority = Priority.INTERACTIVE) -> list[Lease]:
    return lease_claim(integration="memory", priority=priority, limit=limit, seconds=60)


@pytest.mark.feature("G1", "A10")
@pytest.mark.django_db(transaction=True)
def test_it_synchronises_everything_due_with_several_threads(side: Side) -> None:
    customers = [customer_create(name=f"Ada {number}") for number in range(20)]
    side.poke()

    count = sync_due_once()

    assert count == 20
    assert {side.state(customer).status for customer in customers} == {"in_sync"}
    assert len(side.world.living()) == 20


@pytest.mark.feature("G5")
@pytest.mark.django_db
def test_it_serves_an_interactive_change_before_a_thousand_bulk_ones(side: Side) -> None:
    for number in range(30):
        customer_create(name=f"Bulk {number}", priority="bulk")
    side.poke()
    person = customer_create(name="Person")
    side.poke()
    served: list[str] = []
    side.world.after.append(lambda call: served.append(str(side.world.living()[-1].fields["name"])))

    for _ in range(3):
        lease = (claim(1) or claim(1, Priority.WEBHOOK) or claim(1, Priority.BULK))[0]
        sync_leased(lease)

    assert served[0] == person.name
    assert all(name.startswith("Bulk") for name in served[1:])


@pytest.mark.feature("C1")
@pytest.mark.django_db(transaction=True)
def test_it_gives_each_row_to_one_worker(side: Side) -> None:
    for number in range(40):
        customer_create(name=f"Ada {number}")
    side.poke()
    gate, taken = threading.Barrier(4), []

    def work() -> None:
        gate.wait(60)
        while leases := claim(3):
            taken.extend(lease.state_id for lease in leases)
        connection.close()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert len(taken) == len(set(taken)) == 40


@pytest.mark.feature("C1")
@pytest.mark.django_db
def test_it_takes_a_row_again_when_its_holder_died(side: Side) -> None:
    customer_create(name="Ada")
    side.poke()
    (dead,) = claim()
    nobody = claim()
    past = timezone.now() - timedelta(seconds=1)
    SyncState.objects.update(lease_until=past, next_attempt_at=past)

    (heir,) = claim()

    assert nobody == []
    assert heir.token == dead.token + 1
    with pytest.raises(LeaseLost):
        lease_locked(dead)
    with pytest.raises(LeaseLost):
        lease_renew(dead, seconds=60)


@pytest.mark.feature("C1")
@pytest.mark.django_db(transaction=True)
def test_it_lets_a_suspended_worker_change_nothing(side: Side) -> None:
    """The holder sleeps past its lease in the middle of its call; another worker does the work; the holder wakes."""
    customer = customer_create(name="Ada")
    side.poke()
    inside, awake = threading.Event(), threading.Event()

    def sleep(call: Call) -> None:
        if call.method == "create" and not inside.is_set():
            inside.set()
            assert awake.wait(60)

    side.world.before.append(sleep)
    done: list[int] = []

    def suspended() -> None:
        done.append(sync_due_once(budget=0))
        connection.close()

    thread = threading.Thread(target=suspended)
    thread.start()
    assert inside.wait(60)
    past = timezone.now() - timedelta(seconds=1)
    SyncState.objects.update(lease_until=past, next_attempt_at=past)
    sync_due_once(budget=0)
    before = SyncState.objects.values().get()
    awake.set()
    thread.join(60)

    assert done == [1]
    assert SyncState.objects.values().get() == before
    assert side.state(customer).status == "in_sync"
    assert len(side.world.living()) == 1


@pytest.mark.feature("C8")
@pytest.mark.django_db
def test_it_claims_through_the_partial_index(world: World) -> None:
    with connection.cursor() as cursor:
        cursor.execute(FILL_SQL)
        cursor.execute("ANALYZE customers_syncstate")
        parameters = {"integration": "memory", "priority": 0, "limit": 10, "seconds": 60, "owner": "test"}
        cursor.execute("EXPLAIN (ANALYZE, FORMAT TEXT) " + CLAIM_SQL, parameters)
        plan = "\n".join(row[0] for row in cursor.fetchall())

    assert "syncstate_due" in plan
    assert "Seq Scan" not in plan
    assert lease_take(SyncState.objects.exclude(lease_until=None)[0].pk, seconds=60) is None
