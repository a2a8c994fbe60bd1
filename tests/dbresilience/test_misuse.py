from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.db import Error, IntegrityError, OperationalError, connection, transaction
from psycopg import errors
from psycopg_pool import PoolTimeout

from dbresilience.errors import DeadlineExceeded, TransactionAborted, TransactionEnded
from dbresilience.transactions import deadlock_retries, run_in_transaction
from tests.dbresilience.backends import one, pool_of, pooled_alias

pytestmark = [pytest.mark.feature("A4"), pytest.mark.django_db(transaction=True)]


def execute(sql: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql)


def write(name: str) -> None:
    Group.objects.create(name=f"misused {name}")


def written() -> list[str]:
    return [
        name.removeprefix("misused ")
        for (name,) in Group.objects.filter(name__startswith="misused").values_list("name")
    ]


def fail_in_sql() -> None:
    execute("SELECT 1 / 0")


def fail_in_a_model() -> None:
    write("first")


def writing_and_catching(fail: Callable[[], None]) -> Callable[[], str]:
    def work() -> str:
        write("first")
        with suppress(Error):
            fail()
        return "done"

    return work


@pytest.mark.parametrize(("fail", "told"), [(fail_in_sql, TransactionAborted), (fail_in_a_model, IntegrityError)])
@pytest.mark.parametrize("loop", [False, True])
def test_it_tells_of_an_error_that_was_caught_and_undid_the_whole(
    fail: Callable[[], None], told: type[Error], loop: bool
) -> None:
    work = writing_and_catching(fail)

    with pytest.raises(told):
        if loop:
            for attempt in deadlock_retries():
                with attempt:
                    work()
        else:
            run_in_transaction(work)

    assert written() == []


def test_it_tells_of_it_inside_another_transaction_too() -> None:
    def outer() -> None:
        write("outer")
        with pytest.raises(IntegrityError):
            run_in_transaction(writing_and_catching(fail_in_a_model))

    run_in_transaction(outer)

    assert written() == ["outer"]


def test_it_commits_what_was_caught_in_a_savepoint_of_its_own() -> None:
    def in_a_savepoint() -> None:
        with transaction.atomic():
            fail_in_a_model()

    result = run_in_transaction(writing_and_catching(in_a_savepoint))

    assert (result, written()) == ("done", ["first"])


def test_it_undoes_quietly_what_was_to_be_undone() -> None:
    def work() -> str:
        write("first")
        transaction.set_rollback(True)
        return "tried"

    assert run_in_transaction(work) == "tried"
    assert written() == []


@pytest.mark.parametrize("ending", ["COMMIT", "ROLLBACK"])
def test_it_tells_of_a_transaction_that_the_function_ended_itself(ending: str) -> None:
    def work() -> None:
        write("first")
        execute(ending)

    with pytest.raises(TransactionEnded):
        run_in_transaction(work)

    assert written() == (["first"] if ending == "COMMIT" else [])


@pytest.mark.parametrize("retry_on", [errors.SerializationFailure, Exception])
def test_it_never_repeats_what_the_function_committed_itself(retry_on: type[Exception]) -> None:
    runs: list[int] = []

    def work() -> None:
        runs.append(1)
        write(f"run {len(runs)}")
        execute("COMMIT")
        execute("DO $$ BEGIN RAISE EXCEPTION 'again' USING ERRCODE = '40001'; END $$")

    with pytest.raises(TransactionEnded) as raised:
        run_in_transaction(work, retry_on=retry_on, deadline=60)

    assert isinstance(raised.value.__cause__, OperationalError)
    assert (len(runs), written()) == (1, ["run 1"])


async def write_later() -> None:
    write("never")


def write_one_by_one() -> Iterator[None]:
    yield write("never")


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("work", [write_later, write_one_by_one])
def test_it_refuses_a_function_whose_work_would_begin_later(work: Callable[[], object], nested: bool) -> None:
    def run() -> None:
        run_in_transaction(work)

    with pytest.raises(TypeError, match="asynchronous"):
        run_in_transaction(run) if nested else run()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("isolation", "SERIALIZABLE"),
        ("isolation", 3),
        ("deadline", float("nan")),
        ("deadline", float("inf")),
        ("deadline", 1e12),
        ("deadline", "5"),
        ("retry_on", "40001"),
        ("retry_on", None),
        ("retry_on", [errors.DeadlockDetected]),
        ("retry_on", (errors.DeadlockDetected, "40001")),
        ("max_retries", -1),
        ("max_retries", 1.5),
        ("max_retries", "3"),
        ("lock", 2**63),
        ("lock", 1.5),
        ("lock", "7"),
    ],
)
def test_it_names_an_argument_that_makes_no_sense(name: str, value: Any) -> None:
    runs: list[int] = []

    with pytest.raises(ValueError, match=f"^{name} must be "):
        run_in_transaction(lambda: runs.append(1), **{name: value})

    assert not runs


def test_it_keeps_to_a_deadline_inside_another_transaction() -> None:
    def outer() -> str:
        write("outer")
        with pytest.raises(DeadlineExceeded):
            run_in_transaction(lambda: execute("SELECT pg_sleep(60)"), deadline=0.05)
        execute("SELECT pg_sleep(0.1)")
        return "done"

    assert run_in_transaction(outer) == "done"
    assert written() == ["outer"]


def test_it_waits_for_a_connection_no_longer_than_its_deadline(settings: Any) -> None:
    settings.DB_POOL_SIZE, settings.DB_MAX_OVERFLOW = 1, 0
    with pooled_alias() as wrapper:
        held = fill_and_hold(wrapper)

        with pytest.raises(DeadlineExceeded):
            run_in_transaction(lambda: one("SELECT 1"), deadline=0.05)

        pool_of(wrapper).putconn(held)
        assert run_in_transaction(lambda: one("SELECT 1"), deadline=60) == 1


def test_it_waits_for_a_connection_once(settings: Any) -> None:
    settings.DB_POOL_SIZE, settings.DB_MAX_OVERFLOW = 1, 0
    with pooled_alias() as wrapper:
        held = fill_and_hold(wrapper)
        # Not before there is one: connecting may take longer.
        pool_of(wrapper).timeout = 0.05

        with pytest.raises(OperationalError) as raised:
            run_in_transaction(lambda: one("SELECT 1"))

        assert isinstance(raised.value.__cause__, PoolTimeout)
        assert pool_of(wrapper).stats().timeouts == 1
        pool_of(wrapper).putconn(held)


def fill_and_hold(wrapper: Any) -> Any:
    """Have the pool open, and its only connection borrowed."""
    wrapper.ensure_connection()
    wrapper.close()
    return pool_of(wrapper).getconn()
