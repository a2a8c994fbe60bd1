"""Projections that say what one event writes."""

from __future__ import annotations

import pytest
from django.conf import LazySettings
from django.db import OperationalError, connection

from projections.runner import projections_run_once
from projections.verifying import projection_verify
from tests.projections.conftest import accounts, deposit, live, publish_deposits

pytestmark = [pytest.mark.feature("H3")]


@pytest.fixture
def singly(shapes: None, settings: LazySettings) -> None:
    settings.PROJECTIONS = ["tests.projections.models_of_tests.TotalsSingly"]


def prepared_statements() -> int:
    """Of the build; its session may have those of others."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE %s", [f'%_{live().pk}"%'])
        found: int = cursor.fetchone()[0]
        return found


def test_it_writes_each_event_once_in_its_order(singly: None) -> None:
    publish_deposits(*[deposit(f"a{n % 5}", n, payload={"amount": n, "tag": f"t{n}"}) for n in range(100)])

    projections_run_once()

    assert accounts() == {f"a{n}": (sum(range(n, 100, 5)), 20) for n in range(5)}
    assert projection_verify(name="totals").count == 0
    assert prepared_statements() == 2


def test_it_finds_the_event_that_fails_and_goes_on_without_its_aggregate(singly: None) -> None:
    publish_deposits(*[f"a{n}" for n in range(40)], deposit("bad", 3), deposit("bad", -5), deposit("bad", 1), "a0")

    projections_run_once()

    failure = live().failure_set.get()
    assert (failure.aggregate_id, failure.sequence, failure.code) == ("bad", 2, "IntegrityError")
    assert "test_totals_floor" in failure.message
    assert accounts() == {f"a{n}": (1, 1) for n in range(1, 40)} | {"a0": (2, 2), "bad": (3, 1)}


def test_it_says_which_field_a_payload_lacks(singly: None) -> None:
    publish_deposits("a", deposit("b", payload={}))

    projections_run_once()

    assert accounts() == {"a": (1, 1), "b": (0, 0)} or accounts() == {"a": (1, 1)}
    assert live().failure_set.get().aggregate_id == "b"


def test_it_prepares_nothing_behind_a_pgbouncer(singly: None, settings: LazySettings) -> None:
    settings.DB_PGBOUNCER = True
    publish_deposits("a", "b", "a")

    projections_run_once()

    assert accounts() == {"a": (2, 2), "b": (1, 1)}
    assert prepared_statements() == 0


def test_a_database_in_trouble_blames_no_event(singly: None) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE FUNCTION test_gone() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE EXCEPTION 'gone' USING ERRCODE = '57P01'; END $$"
        )
    publish_deposits("a")
    projections_run_once()
    table = f"test_totals_{live().pk}"
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE TRIGGER gone BEFORE UPDATE ON {table} EXECUTE FUNCTION test_gone()")
    publish_deposits("a", "b")

    with pytest.raises(OperationalError):
        projections_run_once()
    with connection.cursor() as cursor:
        cursor.execute("DROP FUNCTION test_gone CASCADE")
    projections_run_once()

    assert accounts() == {"a": (2, 2), "b": (1, 1)}
    assert not live().failure_set.exists()
