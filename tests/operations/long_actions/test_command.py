from __future__ import annotations

import io
import json
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from operations.long_actions.runner import operations_run_once
from operations.models import AuditEntry, Operation
from tests.operations.long_actions.acting import Acting, numbers_make, refusing
from tests.operations.long_actions.conftest import planned, started

pytestmark = pytest.mark.feature("F5", "H4")


def run(*arguments: str) -> str:
    out = io.StringIO()
    call_command("operations", *arguments, stdout=out)
    return out.getvalue()


def run_json(*arguments: str) -> Any:
    return json.loads(run(*arguments, "--json"))


def test_it_counts_first_and_keeps_the_plan_when_asked_to(acting: Acting) -> None:
    numbers_make(10, odd=[1])

    counted = run("plan", Acting.name, "--filter", '{"up_to": 10}')
    kept = run_json("plan", Acting.name, "--filter", '{"up_to": 10}', "--keep", "--reason", "because", "--rate", "5")

    assert counted.splitlines() == ["9 eligible", "1 not eligible: odd one out"]
    operation = Operation.objects.get()
    assert kept["id"] == operation.pk
    assert (operation.rate, operation.reason) == (5.0, "because")
    assert operation.actor.startswith("shell")


def test_it_steers(acting: Acting) -> None:
    operation = planned()

    states = [run_json(verb, str(operation.pk))["state"] for verb in ("start", "pause", "resume", "cancel")]

    assert states == ["running", "paused", "running", "cancelled"]
    assert AuditEntry.objects.filter(target=f"operation:{operation.pk}", actor__startswith="shell").count() == 4


def test_it_shows_what_failed_and_exits_with_1(acting: Acting, capsys: pytest.CaptureFixture[str]) -> None:
    numbers_make(10)
    acting.refuse = refusing(3)
    operation = started()
    operations_run_once()
    out = io.StringIO()

    with pytest.raises(SystemExit) as ended:
        call_command("operations", "show", str(operation.pk), stdout=out)

    assert ended.value.code == 1
    assert "100 % of 10: 9 succeeded, 1 failed" in out.getvalue()
    assert "  3: failed refused no 3 today" in out.getvalue()


def test_it_lists(acting: Acting) -> None:
    assert run("list") == "No operations.\n"
    planned()
    started()

    assert len(run("list").splitlines()) == 2
    assert [one["state"] for one in run_json("list", "--state", "running", "--kind", Acting.name)] == ["running"]
    assert "tests.act  Act upon numbers" in run("kinds")


@pytest.mark.parametrize(
    "arguments",
    [
        ["show", "999"],
        ["start", "999"],
        ["start", "x"],
        ["plan", "no.such"],
        ["plan", Acting.name, "--filter", "{"],
        ["plan", Acting.name, "--filter", "[]"],
        ["plan", Acting.name, "--filter", '{"up_to": -1}'],
        ["plan", Acting.name, "--filter", '{"up_to": 1}', "--keep"],
        ["plan", Acting.name, "--filter", '{"up_to": 1}', "--keep", "--reason", "r", "--rate", "0"],
        ["list", "--state", "lost"],
    ],
)
def test_it_refuses_with_one_line(acting: Acting, arguments: list[str]) -> None:
    with pytest.raises(CommandError):
        run(*arguments)

    assert not Operation.objects.exists()


def test_it_refuses_what_the_state_does_not_allow(acting: Acting) -> None:
    operation = planned()

    with pytest.raises(CommandError, match="planned; it cannot pause"):
        run("pause", str(operation.pk))
