from __future__ import annotations

import json
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from operations.long_actions.runner import operations_run_once
from operations.models import AuditEntry, Operation
from projections.models import Build, Failure
from projections.rebuilding import rebuild_start
from projections.runner import projections_run_once
from tests.projections.conftest import accounts, deposit, live, publish_deposits
from tests.projections.models_of_tests import Totals

pytestmark = [pytest.mark.feature("F5")]


def run(*words: Any) -> tuple[str, int]:
    """What a command printed, and its exit status."""
    out = StringIO()
    try:
        call_command(*[str(word) for word in words], stdout=out)
    except SystemExit as exc:
        return out.getvalue().strip(), int(exc.code or 0)
    return out.getvalue().strip(), 0


@pytest.fixture
def failing(totals: type[Totals]) -> Failure:
    publish_deposits(deposit("a", 3), deposit("bad", -500), "b", "bad")
    projections_run_once()
    return Failure.objects.get()


@pytest.mark.feature("E5")
def test_status_exits_with_one_when_something_is_wrong(failing: Failure) -> None:
    bad = run("projection_status")
    call_command("projection_failures", "resolve", str(failing.pk), "--strategy=skip", stdout=StringIO())
    projections_run_once()
    good = run("projection_status")

    assert bad[1] == 1
    assert "totals 1" in bad[0] and "degraded" in bad[0] and "1 failing, 1 waiting behind" in bad[0]
    assert good[1] == 0
    assert json.loads(run("projection_status", "--json")[0])["projections"][0]["builds"][0]["status"] == "healthy"


def test_status_says_that_nothing_was_built(totals: type[Totals]) -> None:
    assert run("projection_status") == ("totals: nothing has been built yet", 1)


@pytest.mark.feature("E3")
def test_failures_are_listed_and_resolved(failing: Failure) -> None:
    listed = run("projection_failures", "list", "--projection", "totals")
    with pytest.raises(CommandError, match="note"):
        run("projection_failures", "resolve", failing.pk, "--strategy", "manual_fix")
    resolved = run("projection_failures", "resolve", failing.pk, "--strategy", "manual_fix", "--note", "by hand")
    with pytest.raises(CommandError, match="already"):
        run("projection_failures", "resolve", failing.pk, "--strategy", "skip")
    with pytest.raises(CommandError, match="no such"):
        run("projection_failures", "resolve", 0, "--strategy", "skip")

    assert listed[1] == 1
    assert listed[0].startswith(
        f"{failing.pk}  totals #{failing.build_id}  retrying  deposited of account bad  poison IntegrityError: "
    )
    assert resolved[1] == 0
    assert run("projection_failures", "list") == ("No active failures.", 0)
    assert AuditEntry.objects.get().actor.startswith("shell:")


@pytest.mark.feature("E7")
def test_replay_counts_first(failing: Failure) -> None:
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM test_totals WHERE account = 'a'")

    first = live().cursor - 3
    nothing = run("projection_replay", "totals")
    planned = run("projection_replay", "totals", "--from", first)
    before = Operation.objects.count()
    started = run("projection_replay", "totals", "--from", first, "--apply")
    with pytest.raises(CommandError, match="under way"):
        run("projection_replay", "totals", "--from", first, "--apply")
    while operations_run_once():
        pass

    assert nothing[0] == "0 items, nothing after the checkpoint; --apply starts it"
    assert planned[0] == f"1 item, positions {first} to {first + 3}; --apply starts it"
    assert before == 0
    assert started[0].startswith("operation ")
    assert accounts() == {"a": (3, 1), "b": (1, 1)}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nothing"], "^PROJECTIONS lists no projection named 'nothing'"),
        (["totals", "--from", "9", "--to", "2"], "backwards"),
        (["totals", "--to", "999999999"], r"^--to: The log ends at \d+\.$"),
        (["totals", "--aggregate", "account"], "type:id"),
        (["totals", "--from", "1", "--aggregate", "pet:1"], "^--aggregate: Each row of totals belongs to one account"),
    ],
)
def test_replay_refuses_ranges_that_are_none(failing: Failure, words: list[str], message: str) -> None:
    with pytest.raises(CommandError, match=message):
        run("projection_replay", *words)


@pytest.mark.feature("E7")
def test_reset_needs_its_token(failing: Failure) -> None:
    asked, _ = run("projection_reset", "totals")
    token = asked.rpartition(" --confirm ")[2]
    with pytest.raises(CommandError, match="token"):
        run("projection_reset", "totals", "--confirm", "wrong")

    done = run("projection_reset", "totals", "--confirm", token)

    assert done == (f"totals is empty; build {live().pk} is being filled", 0)
    assert accounts() == {}
    with pytest.raises(CommandError, match="projection named"):
        run("projection_reset", "nothing")


@pytest.mark.feature("H3")
def test_rebuild_fills_compares_and_switches(totals: type[Totals]) -> None:
    publish_deposits("a", "b")
    projections_run_once()
    old = live()

    filled = run("projection_rebuild", "totals", "--no-switch")
    with connection.cursor() as cursor:
        cursor.execute("UPDATE test_totals SET total = 99 WHERE account = 'a'")
    refused = run("projection_rebuild", "totals")
    switched = run("projection_rebuild", "totals", "--accept-differences")
    mended = accounts()
    back = run("projection_rebuild", "totals", "--rollback")
    damaged = accounts()
    run("projection_rebuild", "totals", "--rollback")
    retired = run("projection_rebuild", "totals", "--retire")

    assert "2 rows, the same" in filled[0]
    assert refused[1] == 1
    assert "1 different" in refused[0]
    assert switched[1] == 0
    assert (mended["a"], damaged["a"]) == ((1, 1), (99, 1))
    assert back == (f"readers see build {old.pk} again", 0)
    assert retired[1] == 0
    assert Build.objects.get(pk=old.pk).state == "retired"
    with pytest.raises(CommandError, match="no build"):
        run("projection_rebuild", "totals", "--cancel")


@pytest.mark.feature("H3")
def test_verify_exits_with_one_when_a_row_differs(failing: Failure) -> None:
    good = run("projection_verify")
    with connection.cursor() as cursor:
        cursor.execute("UPDATE test_totals SET total = 99 WHERE account = 'a'")
    bad = run("projection_verify", "totals")
    as_json = json.loads(run("projection_verify", "totals", "--json")[0])

    assert good[1] == 0
    assert "2 rows of 2 events, as it should be" in good[0]
    assert bad[1] == 1
    assert bad[0].endswith("test_totals (a): different total")
    assert as_json[0]["count"] == 1
    with pytest.raises(CommandError, match="no such build"):
        run("projection_verify", "totals", "--build", 0)
    with pytest.raises(CommandError, match="projection named"):
        run("projection_verify", "nothing")


@pytest.mark.feature("E3")
def test_resolve_names_what_it_had_resolved_before_it_was_refused(failing: Failure) -> None:
    refused = rf"^{failing.pk + 1}: There is no such failure\. This command resolved before it: {failing.pk}\.$"

    with pytest.raises(CommandError, match=refused):
        run("projection_failures", "resolve", failing.pk, failing.pk + 1, "--strategy", "skip")

    failing.refresh_from_db()
    assert failing.state == "resolved"


@pytest.mark.feature("E3")
def test_what_fails_in_two_builds_is_skipped_at_once(failing: Failure) -> None:
    rebuild_start(name="totals", actor="user:ann")
    projections_run_once()
    both = list(Failure.objects.order_by("pk").values_list("pk", flat=True))

    done = run("projection_failures", "resolve", *both, "--strategy", "skip")
    with pytest.raises(CommandError, match=rf"^{both[0]}: This failure is resolved already\.$"):
        run("projection_failures", "resolve", *both, "--strategy", "skip")

    assert len(both) == len(done[0].splitlines()) == 2
    assert set(Failure.objects.values_list("state", "strategy")) == {("resolved", "skip")}
