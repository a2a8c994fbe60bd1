"""Locks by name: one holder at a time, fenced when it is late, counted when others want them."""

from __future__ import annotations

import os
import signal
import threading

import pytest
from django.db import connection, transaction
from prometheus_client import REGISTRY

from operations.locks.errors import LockLost, LockTaken
from operations.locks.held import lock_held
from operations.locks.rows import LockName, lock_check, lock_holder, locks_release, locks_take
from operations.models import Lock
from tests.children import child_run
from tests.customers.races import in_threads, wait_until_somebody_waits_for_me
from tests.operations.conftest import MakeClient, staff_client

__all__ = ["staff_client"]
pytestmark = [pytest.mark.feature("C9"), pytest.mark.django_db(transaction=True)]

ANN, BOB = LockName("customer", "ann"), LockName("customer", "bob")


def count_of(name: str, kind: str = "customer") -> float:
    return REGISTRY.get_sample_value(name, {"kind": kind}) or 0.0


def run_out() -> None:
    Lock.objects.update(until="2020-01-01T00:00:00Z")


def test_it_gives_a_lock_to_one_at_a_time() -> None:
    inside, seen = [0], []

    def work() -> None:
        with lock_held("customer", "ann", seconds=30, wait=20):
            inside[0] += 1
            seen.append(inside[0])
            inside[0] -= 1

    assert in_threads(*[work] * 8) == []

    assert seen == [1] * 8
    assert not Lock.objects.exists()


def test_it_takes_all_or_none() -> None:
    with transaction.atomic():
        locks_take([BOB], holder="one")

    with pytest.raises(LockTaken) as refused, transaction.atomic():
        locks_take([ANN, BOB], holder="two")

    assert (refused.value.key, refused.value.holder, refused.value.status) == ("bob", "one", 409)
    assert [lock.key for lock in Lock.objects.all()] == ["bob"]


def test_it_lets_two_who_want_the_same_ones_in_any_order_wait_instead_of_deadlocking() -> None:
    taken: list[str] = []

    def other() -> None:
        try:
            with transaction.atomic():
                locks_take([BOB, ANN], holder="other")
                taken.append("other")
        except LockTaken:
            taken.append("refused")

    with transaction.atomic():
        locks_take([ANN], holder="mine")
        thread = threading.Thread(target=lambda: in_threads(other))
        thread.start()
        wait_until_somebody_waits_for_me()
        locks_take([BOB], holder="mine")
    thread.join(timeout=60)

    assert taken == ["refused"]
    assert {lock.holder for lock in Lock.objects.all()} == {"mine"}


def test_it_fences_a_holder_whose_time_ran_out() -> None:
    with lock_held("customer", "ann", seconds=30) as late:
        run_out()
        with transaction.atomic():
            tokens = locks_take([ANN], holder="next", seconds=30)

        with pytest.raises(LockLost), transaction.atomic():
            late.check()
        with pytest.raises(LockLost):
            late.renew(seconds=30)

    assert tokens[ANN] > late.token
    # What the late one gave back was not its own any more.
    assert Lock.objects.get().holder == "next"


def test_it_lets_nobody_take_a_lock_before_what_was_begun_under_it_is_committed() -> None:
    order: list[str] = []

    def taker() -> None:
        with transaction.atomic():
            locks_take([ANN], holder="next", seconds=30)
            order.append("taken")

    with lock_held("customer", "ann", seconds=30) as held:
        run_out()
        with transaction.atomic():
            held.check()
            thread = threading.Thread(target=lambda: in_threads(taker))
            thread.start()
            wait_until_somebody_waits_for_me()
            order.append("written")
        thread.join(timeout=60)

    assert order == ["written", "taken"]


def test_its_tokens_grow_over_names_and_removals() -> None:
    tokens = []
    for name in (ANN, BOB, ANN):
        with transaction.atomic():
            tokens.append(locks_take([name], holder="one")[name])
            locks_release(holder="one")

    assert tokens == sorted(set(tokens))


def test_it_counts_who_found_it_taken_and_who_waited_in_vain() -> None:
    contended, waited = count_of("zenskar_locks_contended_total"), count_of("zenskar_lock_timeouts_total")
    with transaction.atomic():
        locks_take([ANN], holder="one")

    for _ in range(3):
        with pytest.raises(LockTaken), lock_held("customer", "ann", seconds=30, wait=0.05):
            pass

    assert count_of("zenskar_locks_contended_total") == contended + 3
    assert count_of("zenskar_lock_timeouts_total") == waited + 3
    assert Lock.objects.get().contended == 3


def test_a_lock_of_a_row_never_runs_out_and_one_of_a_process_does() -> None:
    with transaction.atomic():
        locks_take([ANN], holder="saga:1")
        locks_take([BOB], holder="process", seconds=30)
    Lock.objects.filter(until__isnull=False).update(until="2020-01-01T00:00:00Z")

    holders = [lock_holder(name) for name in (ANN, BOB)]

    assert [found.holder if found else None for found in holders] == ["saga:1", None]


def test_a_killed_holder_is_followed_when_its_time_is_over() -> None:
    def work() -> None:
        with lock_held("integration", "stripe", seconds=600):
            os.kill(os.getpid(), signal.SIGKILL)

    died = child_run(work)
    with pytest.raises(LockTaken), lock_held("integration", "stripe", seconds=30):
        pass
    run_out()
    with lock_held("integration", "stripe", seconds=30) as held:
        followed = Lock.objects.get()

    assert died.returncode == -signal.SIGKILL
    assert followed.token == held.token


def test_a_lock_cannot_be_had_twice_whatever_a_program_does() -> None:
    with transaction.atomic():
        locks_take([ANN], holder="one")

    with connection.cursor() as cursor, pytest.raises(Exception, match="operations_lock_uniq"):
        cursor.execute("INSERT INTO operations_lock (kind, key, token, holder) VALUES ('customer', 'ann', 1, 'two')")


def test_the_check_reads_the_token() -> None:
    with transaction.atomic():
        token = locks_take([ANN], holder="one")[ANN]
        lock_check(ANN, token)
        with pytest.raises(LockLost):
            lock_check(ANN, token - 1)


def test_the_console_shows_who_holds_what(staff_client: MakeClient) -> None:
    with transaction.atomic():
        locks_take([ANN], holder="saga:1")
    client = staff_client("viewer")

    listed = client.get("/admin/operations/lock/")
    page = client.get(f"/admin/operations/lock/{Lock.objects.get().pk}/change/")

    assert "saga:1" in listed.content.decode()
    assert page.status_code == 200
