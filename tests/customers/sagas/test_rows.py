"""The rows of protected changes: what the database refuses, what is removed, who goes on with them."""

from __future__ import annotations

import threading
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction
from django.db.models import F
from django.utils import timezone
from pytest_django import Settings
from uuid_utils.compat import uuid7

from customers.erasing.services import customer_erase
from customers.errors import CustomerBusy
from customers.integrations import Unreachable
from customers.models import Customer, Erasure, Saga, SagaStep, SyncRequest, SyncState
from customers.sagas.beginning import Wanted, saga_begin
from customers.sagas.lease import SagaLease, sagas_claim
from customers.sagas.runner import sagas_due_once, sagas_prune_once
from customers.sagas.running import saga_run
from tests.customers.races import in_threads
from tests.customers.sagas.conftest import begun, leases_run_out, nothing_is_left
from tests.customers.sagas.test_refused import refuses
from tests.customers.sync.conftest import Side

pytestmark = [pytest.mark.feature("C11"), pytest.mark.django_db(transaction=True)]

Action = Saga.Action


def row(**values: Any) -> Saga:
    given = {"action": "create", "customer_id": uuid7(), "origin": "api", "actor": "a", "give_up_at": timezone.now()}
    return Saga.objects.create(**{**given, **values})


@pytest.mark.feature("C8")
@pytest.mark.parametrize(
    ("now", "then"),
    [("done", "running"), ("undone", "running"), ("done", "undone"), ("undoing", "running"), ("running", "undone")],
)
def test_a_saga_goes_nowhere_but_forward(now: str, then: str) -> None:
    ends = {"done": timezone.now(), "undone": timezone.now()}
    why = {"undoing": {"status": 502}, "undone": {"status": 502}}
    saga = row(status=now, finished_at=ends.get(now), failure=why.get(now))

    with pytest.raises(IntegrityError, match="cannot go from"):
        Saga.objects.filter(pk=saga.pk).update(status=then, finished_at=ends.get(then), failure=why.get(then) or None)


@pytest.mark.feature("C8")
@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"status": "undoing"}, "customers_saga_turned_back_has_failure"),
        ({"status": "done"}, "customers_saga_finished_has_time"),
        ({"finished_at": timezone.now()}, "customers_saga_finished_has_time"),
        (
            {"status": "done", "finished_at": timezone.now(), "values": {"name": "Ada"}},
            "customers_saga_finished_is_empty",
        ),
        ({"status": "lost"}, "customers_saga_status_known"),
        ({"failure": {"status": 502}}, "customers_saga_turned_back_has_failure"),
    ],
)
def test_a_saga_cannot_be_what_it_must_not(values: dict[str, Any], name: str) -> None:
    with pytest.raises(IntegrityError, match=name), transaction.atomic():
        row(**values)


@pytest.mark.feature("C8", "C9")
def test_a_customer_has_one_open_saga() -> None:
    first = row()

    with pytest.raises(IntegrityError, match="customers_saga_open_uniq"), transaction.atomic():
        row(customer_id=first.customer_id)


@pytest.mark.feature("C8")
def test_a_key_has_one_saga() -> None:
    row(idempotency_id=7)

    with pytest.raises(IntegrityError, match="customers_saga_key_uniq"), transaction.atomic():
        row(idempotency_id=7)


def test_workers_go_on_with_all_that_is_due(side: Side) -> None:
    side.world.lose_answers(2, method="create")
    sagas = [begun(Action.CREATE, name=f"Ada {n}") for n in range(5)]
    waiting = Saga.objects.open().count()

    leases_run_out()
    done = sagas_due_once()

    assert [saga.status for saga in sagas[:2]] == ["running"] * 2
    assert (waiting, done) == (2, 2)
    assert Saga.objects.filter(status="done").count() == Customer.objects.count() == len(side.world.records) == 5
    assert sagas_due_once() == 0
    nothing_is_left()


@pytest.mark.feature("C11", "C9")
def test_whoever_was_overtaken_ends_nothing(side: Side) -> None:
    """Suspected dead at the last step, where all becomes visible; the one that took over ends it."""
    overtaken = saga_begin(Wanted(action=Action.CREATE, values={"name": "Ada"}))
    taken: list[SagaLease] = []

    def overtake(step: str) -> None:
        if step == "local started":
            leases_run_out()
            taken.extend(sagas_claim(limit=1, seconds=60))

    ended = saga_run(overtaken, on_step=overtake)

    assert (ended, len(taken), Customer.objects.count()) == (None, 1, 0)
    assert saga_run(taken[0]) is not None
    assert Customer.objects.get().name == "Ada"
    assert len(side.world.living()) == 1
    nothing_is_left()


def test_nobody_takes_one_that_is_held_or_waits(side: Side) -> None:
    held = saga_begin(Wanted(action=Action.CREATE, values={"name": "Ada"}))

    taken = sagas_due_once()
    ended = saga_run(held)

    assert taken == 0
    assert ended is not None


def test_old_ones_are_removed_and_open_ones_never(side: Side, settings: Settings) -> None:
    refuses(side.world, "create", times=1)
    begun(Action.CREATE, name="Refused")
    begun(Action.CREATE, name="Done")
    side.world.lose_answers(1, method="create")
    open_one = begun(Action.CREATE, name="Open")
    age = timedelta(days=91)
    Saga.objects.update(created_at=F("created_at") - age)
    Saga.objects.filter(finished_at__isnull=False).update(finished_at=F("finished_at") - age)

    settings.PROTECTED_RETENTION = 0
    kept = sagas_prune_once()
    settings.PROTECTED_RETENTION = 90
    removed = sagas_prune_once()

    assert (kept, removed) == (0, 2)
    assert list(Saga.objects.all()) == [open_one]
    assert SagaStep.objects.exclude(saga=open_one).count() == 0
    # The row of the one that never reached the other side went with it.
    assert SyncState.objects.filter(customer=None).exclude(saga=open_one).count() == 0
    assert Customer.objects.get().name == "Done"


@pytest.mark.feature("H8")
def test_nothing_of_a_person_stays_when_it_has_ended(side: Side) -> None:
    refuses(side.world, "create", times=1)
    begun(Action.CREATE, name="Secretive", email="secret@example.com")
    customer = side.linked(name="Ada")
    begun(Action.UPDATE, customer, name="Secretive")

    assert {saga.status for saga in Saga.objects.all()} == {"done", "undone"}
    kept = str([list(model.objects.values()) for model in (Saga, SagaStep)])
    assert "ecret" not in kept
    refused = SyncRequest.objects.get(outcome="refused")
    assert (refused.body, refused.fields) == ({}, {})


@pytest.mark.feature("H8")
def test_an_erasure_waits_for_a_protected_change_and_then_leaves_nothing(side: Side) -> None:
    customer = side.linked(name="Ada")
    refuses(side.world, "update", Unreachable("gone", code="x"), times=1)
    saga = begun(Action.UPDATE, customer, name="Secretive")

    first = customer_erase(customer_id=customer.pk, actor="user:ann")
    leases_run_out()
    while sagas_due_once():
        leases_run_out()
    side.rest()
    customer_erase(customer_id=customer.pk, actor="user:ann")

    saga.refresh_from_db()
    assert "a protected change that is under way" in first.waits_for
    assert saga.status == "undone"
    assert side.world.living() == []
    assert "a protected change that is under way" not in Erasure.objects.get().waits_for
    kept = str([list(model.objects.values()) for model in (Saga, SagaStep, SyncState, SyncRequest)])
    assert "ecretive" not in kept
    nothing_is_left()


@pytest.mark.feature("G6")
def test_an_integration_that_is_not_configured_any_more_is_left_alone(side: Side) -> None:
    customer = side.linked(name="Ada")
    old = SyncState.objects.create(
        customer=customer, integration="old", livemode=False, remote_id="old_1", status=SyncState.Status.IN_SYNC
    )

    begun(Action.DELETE, customer)

    old.refresh_from_db()
    assert (old.status, old.saga_id, old.lease_token) == ("in_sync", None, 0)
    assert Saga.objects.get().status == "done"


@pytest.mark.feature("C9")
def test_one_change_ends_while_the_next_begins_without_a_deadlock(side: Side) -> None:
    customer = side.linked(name="Ada")
    lease = saga_begin(Wanted(action=Action.UPDATE, customer_id=customer.pk, values={"name": "Eve"}))
    holds, begins = threading.Event(), threading.Event()
    began: list[Any] = []

    def hold() -> None:
        # Until the one that begins waits for the row, and then the one that ends behind it.
        with transaction.atomic():
            Customer.objects.select_for_update(no_key=True).get(pk=customer.pk)
            holds.set()
            _until_so_many_wait(1)
            begins.set()
            _until_so_many_wait(2)

    def begin() -> None:
        assert holds.wait(60)
        with suppress(CustomerBusy):
            began.append(saga_begin(Wanted(action=Action.UPDATE, customer_id=customer.pk, values={"name": "Zoe"})))

    def meet(name: str) -> None:
        if name == "local started":
            thread.start()
            assert begins.wait(60)

    errors: list[Exception] = []
    thread = threading.Thread(target=lambda: errors.extend(in_threads(hold, begin)))
    before = _deadlocks()
    ended = saga_run(lease, on_step=meet)
    thread.join(60)
    if began:
        saga_run(began[0])

    assert errors == []
    assert ended is not None
    assert ended.saga.status == "done"
    assert _deadlocks() == before
    nothing_is_left()


def _until_so_many_wait(count: int) -> None:
    with connection.cursor() as cursor:
        for _ in range(2000):
            cursor.execute(
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE datname = current_database() AND cardinality(pg_blocking_pids(pid)) > 0"
            )
            if cursor.fetchone()[0] >= count:
                return
            cursor.execute("SELECT pg_sleep(0.005)")
    raise AssertionError("they did not wait")


def _deadlocks() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_stat_force_next_flush()")
        cursor.execute("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
        return int(cursor.fetchone()[0])
