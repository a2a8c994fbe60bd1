from __future__ import annotations

from io import StringIO

import pytest
from django.core.management import call_command
from django.db import connection

from projections.models import Build, Failure
from projections.resolving import failure_resolve
from projections.runner import projections_run_once
from projections.verifying import projection_verify
from tests.projections.conftest import deposit, publish_deposits
from tests.projections.models_of_tests import Totals

pytestmark = [pytest.mark.feature("H3")]


def execute(statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)


def test_it_finds_nothing_wrong_with_what_the_engine_wrote(both: None) -> None:
    publish_deposits(*[deposit(f"a{n % 9}", n) for n in range(200)], deposit("bad", -1000), "bad", "bad")
    projections_run_once()
    publish_deposits(deposit("worse", -1000), "worse")
    projections_run_once()
    failure_resolve(failure_id=Failure.objects.get(aggregate_id="worse").pk, strategy="skip", actor="user:ann")
    projections_run_once()
    publish_deposits("later")

    totals, days = projection_verify(name="totals"), projection_verify(name="days")

    assert (totals.count, totals.events, totals.rows) == (0, 201, 10)
    assert (days.count, days.events, days.rows) == (0, 205, 1)


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        ("UPDATE test_totals SET total = total + 1 WHERE account = 'a1'", "test_totals (a1): different total"),
        ("DELETE FROM test_totals WHERE account = 'a1'", "test_totals (a1): missing"),
        ("INSERT INTO test_totals VALUES ('zz', 1, 1)", "test_totals (zz): unexpected"),
    ],
)
def test_it_finds_what_is_wrong(both: None, damage: str, found: str) -> None:
    publish_deposits("a1", "a2")
    projections_run_once()
    execute(damage)

    verified = projection_verify(name="totals")

    assert [str(one) for one in verified.differences] == [found]
    assert verified.count == 1


def test_it_needs_something_built(both: None) -> None:
    with pytest.raises(Build.DoesNotExist):
        projection_verify(name="totals")


def test_it_says_that_a_person_put_rows_right(totals: type[Totals]) -> None:
    publish_deposits(deposit("bad", -1000))
    projections_run_once()
    failure_resolve(failure_id=Failure.objects.get().pk, strategy="compensate", actor="user:ann")
    projections_run_once()
    out = StringIO()

    with pytest.raises(SystemExit):
        call_command("projection_verify", "totals", stdout=out)

    assert "test_totals (bad): unexpected" in out.getvalue()
    assert "1 event of it put right by a person" in out.getvalue()
