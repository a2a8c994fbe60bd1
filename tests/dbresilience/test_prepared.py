"""Statements that a session keeps."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import DataError, connection, transaction

from dbresilience.errors import ConnectionLost
from dbresilience.prepared import prepared_rows
from dbresilience.transactions import run_in_transaction

pytestmark = [pytest.mark.feature("B7"), pytest.mark.django_db(transaction=True)]

SQL = "SELECT 12 / %(divisor)s::int"


def kept() -> list[str]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT statement FROM pg_prepared_statements")
        return [row[0] for row in cursor.fetchall()]


def test_it_keeps_a_statement_from_the_first_time_on() -> None:
    found = [prepared_rows(SQL, {"divisor": divisor}) for divisor in (3, 4)]

    assert found == [[(4,)], [(3,)]]
    assert kept().count("SELECT 12 / $1::int") == 1


def test_it_keeps_none_behind_pgbouncer(settings: Any) -> None:
    settings.DB_PGBOUNCER = True

    found = prepared_rows("SELECT 24 / %(divisor)s::int", {"divisor": 3})

    assert found == [(8,)]
    assert "SELECT 24 / $1::int" not in kept()


def test_it_outlives_a_transaction_that_was_rolled_back() -> None:
    with pytest.raises(DataError), transaction.atomic():
        prepared_rows(SQL, {"divisor": 3})
        prepared_rows(SQL, {"divisor": 0})

    assert prepared_rows(SQL, {"divisor": 6}) == [(2,)]
    assert kept().count("SELECT 12 / $1::int") == 1


def test_it_is_seen_with_its_values_where_statements_are_logged(django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(1) as seen:
        prepared_rows(SQL, {"divisor": 3})

    assert [query["sql"] for query in seen.captured_queries] == ["SELECT 12 / 3::int"]


@pytest.mark.parametrize("forgotten", ["DISCARD ALL", "DEALLOCATE ALL"])
def test_it_takes_another_session_when_one_forgot_what_it_kept(forgotten: str) -> None:
    prepared_rows(SQL, {"divisor": 3})
    with connection.cursor() as cursor:
        cursor.execute(forgotten)

    assert prepared_rows(SQL, {"divisor": 4}) == [(3,)]
    assert kept().count("SELECT 12 / $1::int") == 1


def test_it_has_the_transaction_run_again_when_its_session_forgot() -> None:
    prepared_rows(SQL, {"divisor": 3})
    with connection.cursor() as cursor:
        cursor.execute("DEALLOCATE ALL")
    runs = []

    def work() -> Any:
        runs.append(1)
        return prepared_rows(SQL, {"divisor": 4})

    assert run_in_transaction(work) == [(3,)]
    assert len(runs) == 2


def test_it_says_in_a_plain_transaction_that_the_session_is_gone() -> None:
    prepared_rows(SQL, {"divisor": 3})
    with connection.cursor() as cursor:
        cursor.execute("DEALLOCATE ALL")

    with pytest.raises(ConnectionLost), transaction.atomic():
        prepared_rows(SQL, {"divisor": 4})

    assert prepared_rows(SQL, {"divisor": 4}) == [(3,)]


def test_it_bears_a_table_that_got_other_columns() -> None:
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE kept_columns (number integer)")
        cursor.execute("INSERT INTO kept_columns VALUES (7)")
    try:
        prepared_rows("SELECT * FROM kept_columns", {})
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE kept_columns ALTER number TYPE text")

        assert prepared_rows("SELECT * FROM kept_columns", {}) == [("7",)]
    finally:
        with connection.cursor() as cursor:
            cursor.execute("DROP TABLE kept_columns")
