"""Statements that a session keeps."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import DataError, connection, transaction

from dbresilience.prepared import prepared_rows

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
