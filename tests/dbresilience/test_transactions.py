from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import psycopg
import pytest
from django.db import IntegrityError, OperationalError, ProgrammingError, connection, transaction
from django.db.transaction import TransactionManagementError
from django.test.utils import CaptureQueriesContext
from psycopg.pq import TransactionStatus

from dbresilience.errors import ConnectionLost, LockHeld, NestedTransaction
from dbresilience.transactions import run_in_transaction

pytestmark = [pytest.mark.feature("A4"), pytest.mark.django_db(transaction=True)]


@pytest.fixture(autouse=True)
def short_waits(settings: object) -> None:
    settings.DB_RETRY_BASE_DELAY = 0.01  # type: ignore[attr-defined]


def balance(account: int) -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT balance FROM account WHERE id = %s", [account])
        return int(cursor.fetchone()[0])


def add(account: int, amount: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute("UPDATE account SET balance = balance + %s WHERE id = %s", [amount, account])


def kill_own_backend() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        (pid,) = cursor.fetchone()
    parameters = connection.get_connection_params()
    known = {key: parameters[key] for key in ("host", "port", "user", "dbname")}
    with psycopg.connect(**known, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])


def in_threads(*functions: Callable[[], None]) -> None:
    errors: list[BaseException] = []

    def guarded(function: Callable[[], None]) -> None:
        try:
            function()
        except BaseException as exc:  # noqa: BLE001 - asserted empty below
            errors.append(exc)
        finally:
            connection.close()

    threads = [threading.Thread(target=guarded, args=(function,)) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert errors == []


@pytest.mark.feature("A6")
def test_it_repeats_the_victim_of_a_deadlock(accounts: str) -> None:
    both_hold_one, one_is_through = threading.Barrier(2), threading.Event()
    runs: list[int] = []

    def move(first: int, second: int) -> None:
        def body() -> None:
            runs.append(first)
            if runs.count(first) > 1:
                # Or it might take what the other one was just granted, and they would meet once more.
                one_is_through.wait(timeout=60)
            add(first, -10)
            if runs.count(first) == 1:
                both_hold_one.wait(timeout=60)
            add(second, 10)

        run_in_transaction(body)
        one_is_through.set()

    in_threads(lambda: move(1, 2), lambda: move(2, 1))

    assert (balance(1), balance(2)) == (100, 100)
    assert len(runs) == 3


def test_it_repeats_the_whole_after_a_serialization_failure(accounts: str) -> None:
    seen: list[int] = []

    def withdraw() -> None:
        seen.append(balance(1))
        if len(seen) == 1:
            in_threads(lambda: add(1, 50))
        add(1, -10)

    run_in_transaction(withdraw, isolation="repeatable read")

    assert seen == [100, 150]
    assert balance(1) == 140


@pytest.mark.feature("B4")
def test_it_raises_when_the_connection_was_lost_and_the_error_swallowed(accounts: str) -> None:
    def body() -> None:
        add(1, 1)
        kill_own_backend()
        try:
            with transaction.atomic():
                add(2, 1)
        except OperationalError:
            return

    with pytest.raises(ConnectionLost):
        run_in_transaction(body, max_retries=0)

    assert (balance(1), balance(2)) == (100, 100)


def test_it_repeats_after_a_connection_lost_before_the_commit(accounts: str) -> None:
    runs: list[int] = []

    def body() -> int:
        runs.append(1)
        add(1, 1)
        if len(runs) == 1:
            kill_own_backend()
        add(2, 1)
        return len(runs)

    result = run_in_transaction(body)

    assert result == 2
    assert (balance(1), balance(2)) == (101, 101)


def test_it_never_repeats_inside_an_outer_transaction(accounts: str) -> None:
    runs: list[int] = []

    def fail() -> None:
        runs.append(1)
        with connection.cursor() as cursor:
            cursor.execute("DO $$ BEGIN RAISE EXCEPTION SQLSTATE '40001'; END $$")

    with pytest.raises(OperationalError), transaction.atomic():
        run_in_transaction(fail)

    assert len(runs) == 1


def test_it_keeps_the_outer_transaction_when_the_nested_one_fails(accounts: str) -> None:
    def fail() -> None:
        add(2, -1000)

    with transaction.atomic():
        add(1, 1)
        with pytest.raises(IntegrityError):
            run_in_transaction(fail)

    assert (balance(1), balance(2)) == (101, 100)


def test_it_does_not_repeat_an_error_of_commit(accounts: str) -> None:
    runs: list[int] = []

    def body() -> None:
        runs.append(1)
        with connection.cursor() as cursor:
            cursor.execute("UPDATE account SET bank_id = 77 WHERE id = 1")

    with pytest.raises(IntegrityError):
        run_in_transaction(body)

    assert len(runs) == 1


def test_it_gives_up_after_the_last_retry(accounts: str) -> None:
    runs: list[int] = []

    def fail() -> None:
        runs.append(1)
        with connection.cursor() as cursor:
            cursor.execute("DO $$ BEGIN RAISE EXCEPTION SQLSTATE '40P01'; END $$")

    with pytest.raises(OperationalError):
        run_in_transaction(fail, max_retries=2)

    assert len(runs) == 3


@pytest.mark.parametrize("more", [{}, {"read_only": True}, {"deadline": 5.0, "isolation": "serializable"}])
def test_it_begins_with_a_lock_or_not_at_all(more: dict[str, Any]) -> None:
    held, go_on = threading.Event(), threading.Event()
    calls: list[str] = []

    def first() -> None:
        calls.append("first")
        held.set()
        assert go_on.wait(60)

    def meanwhile() -> None:
        assert held.wait(60)
        try:
            with pytest.raises(LockHeld):
                run_in_transaction(lambda: calls.append("refused"), lock=-(2**63), **more)
            run_in_transaction(lambda: calls.append("another's"), lock=7, **more)
        finally:
            go_on.set()

    in_threads(lambda: run_in_transaction(first, lock=-(2**63), **more), meanwhile)
    run_in_transaction(lambda: calls.append("later"), lock=-(2**63), **more)

    assert calls == ["first", "another's", "later"]


def test_it_takes_no_lock_inside_another_transaction() -> None:
    with transaction.atomic(), pytest.raises(NestedTransaction):
        run_in_transaction(lambda: None, lock=1)


def test_runs_inside_join_it_where_there_are_no_savepoints(accounts: str) -> None:
    def inner() -> None:
        add(1, 5)
        raise ValueError("inner")

    def caught() -> None:
        add(1, 1)
        with pytest.raises(ValueError, match="inner"):
            run_in_transaction(inner)

    def asked() -> list[str]:
        with CaptureQueriesContext(connection) as queries:
            run_in_transaction(lambda: add(1, 1))
        return [query["sql"].split()[0] for query in queries]

    with pytest.raises(TransactionManagementError):
        run_in_transaction(lambda: (caught(), add(1, 1)), savepoints=False)
    undone = balance(1)
    joined = run_in_transaction(asked, savepoints=False)
    run_in_transaction(caught)
    apart = run_in_transaction(asked)

    assert undone == 100
    assert joined == ["UPDATE"]
    assert apart == ["SAVEPOINT", "UPDATE", "RELEASE"]
    assert balance(1) == 103


def test_it_ends_its_server_side_cursors_with_itself(accounts: str) -> None:
    def read() -> list[bool]:
        with connection.chunked_cursor() as rows, connection.cursor() as cursor:
            rows.execute("SELECT id FROM account ORDER BY id")
            cursor.execute("SELECT is_holdable FROM pg_cursors WHERE name LIKE '_django_curs%'")
            return [held for (held,) in cursor.fetchall()]

    inside = run_in_transaction(read)
    outside = read()

    assert (inside, outside) == ([False], [True])


def test_it_joins_no_transaction_that_somebody_began_behind_djangos_back(accounts: str) -> None:
    before = balance(1)
    with connection.cursor() as cursor:
        cursor.execute("BEGIN")

    with pytest.raises(ProgrammingError):
        run_in_transaction(lambda: add(1, 5))

    with connection.cursor() as cursor:
        cursor.execute("ROLLBACK")
    assert balance(1) == before


@pytest.mark.parametrize("fails", [False, True])
def test_it_leaves_a_session_in_which_every_statement_commits(accounts: str, fails: bool) -> None:
    def work() -> None:
        add(1, 5)
        if fails:
            raise ValueError

    with pytest.raises(ValueError) if fails else nullcontext():
        run_in_transaction(work)
    add(2, 7)
    session = connection.connection
    seen = session.pgconn.transaction_status, session.autocommit, connection.get_autocommit()
    connection.close()

    assert seen == (TransactionStatus.IDLE, True, True)
    assert (balance(1), balance(2)) == (100 if fails else 105, 107)


def test_it_keeps_to_a_database_without_autocommit(accounts: str) -> None:
    other = connection.copy()
    other.settings_dict = {**other.settings_dict, "AUTOCOMMIT": False}
    other.begins_itself = True

    other.ensure_connection()

    try:
        assert (other.get_autocommit(), other.connection.autocommit) == (False, False)
    finally:
        other.close()
