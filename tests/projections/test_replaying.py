from __future__ import annotations

import pytest
from django.db import connection

from operations.long_actions.runner import operations_run_once
from operations.models import Operation, OperationItem
from outbox.sequencing import Sequencer
from projections.models import Failure
from projections.replaying import replay_start
from projections.resolving import failure_resolve
from projections.runner import projections_run_once
from tests.projections.conftest import accounts, deposit, live, publish_deposits
from tests.projections.models_of_tests import Totals

pytestmark = [pytest.mark.feature("H3"), pytest.mark.feature("E7")]

ANN = "user:ann"


def replay(**what: object) -> Operation:
    # Positions go on from test to test.
    operation = replay_start(name="totals", actor=ANN, from_sequence=live().cursor - 7, **what)  # type: ignore[arg-type]
    while operations_run_once():
        pass
    operation.refresh_from_db()
    return operation


def outcomes(operation: Operation) -> list[tuple[str, str]]:
    return list(OperationItem.objects.filter(operation=operation).values_list("state", "message"))


@pytest.fixture
def put_right(totals: type[Totals]) -> None:
    """A row that was set by hand, one with a compensation, one without a skipped event, one without any failure."""
    publish_deposits(deposit("fixed", -500), deposit("paid", -500), deposit("left", -500), "plain")
    projections_run_once()
    for account, strategy in (("fixed", "manual_fix"), ("paid", "compensate"), ("left", "skip")):
        failure = Failure.objects.get(aggregate_id=account)
        failure_resolve(failure_id=failure.pk, strategy=strategy, actor=ANN, note="by the bank's paper")
    publish_deposits("fixed", "paid", "left", "plain")
    projections_run_once()
    with connection.cursor() as cursor:
        cursor.execute("UPDATE test_totals SET total = 40 WHERE account = 'fixed'")
        # Damage, which nobody meant.
        cursor.execute("UPDATE test_totals SET total = 99 WHERE account IN ('left', 'plain')")


def test_a_range_leaves_alone_what_a_person_put_right(put_right: None) -> None:
    operation = replay()

    assert accounts() == {"fixed": (40, 2), "left": (1, 2), "paid": (2, 2), "plain": (2, 2)}
    assert outcomes(operation) == [("succeeded", "2 done, 2 keeps what a person put right")]


def test_an_aggregate_that_is_named_is_computed_anew_whatever_was_done_by_hand(put_right: None) -> None:
    operation = replay(aggregate=("account", "fixed"))

    assert accounts()["fixed"] == (1, 2)
    assert operation.state == "completed"


def test_it_computes_rows_as_they_were_at_the_checkpoint_and_no_later_ones(totals: type[Totals]) -> None:
    publish_deposits("a", "a")
    projections_run_once()
    publish_deposits("a", "b")
    # They have a place in the log, and the runner has not come to them yet: it would apply them again.
    Sequencer().sequence_once()

    replay(to_sequence=live().cursor)
    replayed = accounts()
    projections_run_once()

    assert replayed == {"a": (2, 2)}
    assert accounts() == {"a": (3, 3), "b": (1, 1)}
