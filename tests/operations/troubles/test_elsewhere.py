"""Troubles in the console, from the shell and for Prometheus."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from prometheus_client import CollectorRegistry, generate_latest

from operations.models import AuditEntry, TroubleNote
from operations.troubles.metrics import TroubleCollector
from operations.troubles.page import sparkline
from tests.operations.conftest import MakeClient
from tests.operations.long_actions.acting import Acting
from tests.operations.test_console import inline_in
from tests.operations.troubles.conftest import Leaks

pytestmark = [pytest.mark.django_db, pytest.mark.feature("A12", "F3", "H4")]

PAGE = "/admin/troubles/"
GROUP = "/admin/troubles/group/?source=leaks&group=drip"


def run(*arguments: str) -> tuple[str, int]:
    out = io.StringIO()
    try:
        call_command("troubles", *arguments, stdout=out)
    except SystemExit as ended:
        return out.getvalue(), int(str(ended.code))
    return out.getvalue(), 0


def test_it_shows_every_kind_with_its_buttons(leaks: Leaks, staff_client: MakeClient) -> None:
    answer = staff_client("operator").get(PAGE)

    text = answer.content.decode()
    assert "There is a &lt;drip&gt;." in text
    assert "4 in the last 24 hours, at most 3 in one" in text
    assert "Retry all 4" in text and "Retry all 3" in text
    assert inline_in(answer.content) == []
    assert "Leaks" in staff_client("viewer").get("/admin/").content.decode()


@pytest.mark.parametrize(
    ("count", "label"),
    [(1, "Retry it"), (2, "Retry both"), (1_000, "Retry all 1,000"), (1_001, "Retry the newest 1,000")],
)
def test_its_button_says_how_many(leaks: Leaks, staff_client: MakeClient, count: int, label: str) -> None:
    leaks.open = dict.fromkeys(map(str, range(count)), "drip")

    answer = staff_client("operator").get(GROUP)

    assert f'value="{label}"' in answer.content.decode()


def test_it_leads_to_the_decision_where_trying_again_changes_nothing(
    leaks: Leaks, staff_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Leaks, "decided_on_page", True)
    operator = staff_client("operator")

    listed, shown = (operator.get(page).content.decode() for page in (PAGE, GROUP))

    assert "Retry" not in listed and listed.count(">Decide</a>") == 2
    assert "Retry" not in shown
    assert "troubles retry" not in shown


def test_it_tries_again_by_post_alone(leaks: Leaks, staff_client: MakeClient) -> None:
    client = staff_client("operator")

    client.get(PAGE, {"source": "leaks", "group": "burst"})
    assert len(leaks.open) == 7
    kind = client.post(PAGE, {"source": "leaks", "group": "burst"}, follow=True)
    some = client.post(GROUP, {"source": "leaks", "id": ["1", "3"]}, follow=True)

    assert "3 will be retried." in kind.content.decode()
    assert "2 will be retried." in some.content.decode()
    assert sorted(leaks.open) == ["5", "7"]
    assert AuditEntry.objects.filter(actor="user:operator", action="leak.mended").count() == 2


def test_it_pages_one_kind(leaks: Leaks, staff_client: MakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("operations.troubles.page.SHOWN", 3)
    client = staff_client("viewer")

    first = client.get(GROUP)
    rest = client.get(first.context["next"])

    assert [trouble.id for trouble in first.context["troubles"]] == ["7", "5", "3"]
    assert [trouble.id for trouble in rest.context["troubles"]] == ["1"]
    assert "Try" not in first.content.decode()
    assert inline_in(first.content) == []


def test_it_keeps_notes_and_hides_what_is_snoozed(leaks: Leaks, staff_client: MakeClient) -> None:
    client = staff_client("operator")

    client.post(GROUP, {"owner": "ann", "note": "being mended", "snooze": "24"})

    note = TroubleNote.objects.get()
    assert (note.owner, note.note, note.updated_by) == ("ann", "being mended", "user:operator")
    assert "a drip" not in client.get(PAGE).content.decode()
    assert "being mended" in client.get(PAGE + "?snoozed").content.decode()
    client.post(GROUP, {"owner": "x" * 201, "note": ""})
    client.post(GROUP.replace("drip", "flood"), {"owner": "bob", "note": ""})
    assert TroubleNote.objects.get().owner == "ann"


@pytest.mark.parametrize("query", ["", "?source=leaks", "?source=no&group=drip", "?group=drip"])
def test_it_has_no_page_for_nothing(leaks: Leaks, staff_client: MakeClient, query: str) -> None:
    assert staff_client("operator").get(f"/admin/troubles/group/{query}").status_code == 404


def test_it_has_no_list_of_a_kind_that_there_is_not(leaks: Leaks, staff_client: MakeClient) -> None:
    client = staff_client("operator")

    answers = [client.get(f"{PAGE}?source={name}").status_code for name in ("", "leaks", "no")]

    assert answers == [200, 200, 404]


def test_it_lets_viewers_look_and_not_touch(leaks: Leaks, staff_client: MakeClient) -> None:
    viewer = staff_client("viewer")

    assert viewer.get(PAGE).status_code == viewer.get(GROUP).status_code == 200
    assert viewer.post(PAGE, {"source": "leaks", "group": "burst"}).status_code == 403
    assert viewer.post(GROUP, {"source": "leaks", "id": "1"}).status_code == 403
    assert viewer.post(GROUP, {"owner": "eve", "note": ""}).status_code == 403
    assert staff_client().get(PAGE).status_code == 403
    assert len(leaks.open) == 7


def test_it_leads_to_the_operation_for_large_groups(
    leaks: Leaks, staff_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    from operations.long_actions import kinds

    kinds.register(Acting())
    monkeypatch.setattr(leaks, "operation_for", lambda fingerprint: (Acting.name, {"up_to": 5}))

    text = staff_client("operator").get(PAGE).content.decode()
    kinds.unregister(Acting.name)

    assert "/admin/operations/operation/plan/?kind=tests.act&amp;filter=%7B%22up_to%22%3A+5%7D" in text


def test_it_prints_them_and_exits_with_1(leaks: Leaks) -> None:
    listed, status = run("list", "--source", "leaks", "--limit", "2")
    groups, _ = run("groups", "--source", "leaks", "--json")

    assert status == 1
    assert listed.splitlines()[0] == "leaks  7  open  pipe 7  drip: wet"
    assert len(listed.splitlines()) == 2
    assert [row["group"] for row in json.loads(groups)] == ["burst", "drip"]


def test_it_retries_from_the_shell(leaks: Leaks) -> None:
    assert run("retry", "1", "99", "--source", "leaks") == ("1 will be retried; not: 99\n", 1)
    assert run("retry", "--group", "burst", "--source", "leaks", "--reason", "r") == ("3 will be retried\n", 0)
    leaks.open.clear()
    assert run("list", "--source", "leaks") == ("No troubles.\n", 0)


@pytest.mark.parametrize(
    "arguments", [["list", "--source", "no"], ["retry", "1"], ["retry", "--source", "leaks"], ["retry", "--group", "x"]]
)
def test_it_refuses_with_one_line(leaks: Leaks, arguments: list[str]) -> None:
    with pytest.raises(CommandError):
        run(*arguments)


def test_it_counts_them_for_prometheus(leaks: Leaks) -> None:
    registry = CollectorRegistry()
    registry.register(TroubleCollector())

    assert 'zenskar_troubles{source="leaks",state="open"} 7.0' in generate_latest(registry).decode()


@pytest.mark.parametrize(("hours", "bars"), [([0] * 24, 0), ([1] * 24, 24), ([0] * 23 + [10_000], 1), ((), 0)])
def test_it_draws_a_day(hours: Any, bars: int) -> None:
    assert sparkline(hours).count("<rect") == bars


def test_it_is_closed_to_strangers(leaks: Leaks, client: Client) -> None:
    assert client.get(PAGE)["Location"].startswith("/admin/login/")
