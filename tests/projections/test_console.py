from __future__ import annotations

import re

import pytest
from django.db import connection
from django.urls import reverse

from operations.long_actions.runner import operations_run_once
from operations.models import AuditEntry, Operation
from projections.models import Build, Failure
from projections.projection import Batch
from projections.runner import projections_run_once
from projections.troubles import ManualFailures
from tests.operations.conftest import MakeClient
from tests.projections.conftest import accounts, deposit, live, publish_deposits
from tests.projections.models_of_tests import Totals

pytestmark = [pytest.mark.feature("E7"), pytest.mark.feature("F3")]

BOARD = "/admin/projections/"
PAGE = "/admin/projections/board/totals/"


@pytest.fixture
def failing(totals: type[Totals]) -> Failure:
    publish_deposits(deposit("a", 3), deposit("bad", -500), "b", "bad")
    projections_run_once()
    return Failure.objects.get()


@pytest.mark.parametrize("path", [BOARD, BOARD.rstrip("/"), PAGE, PAGE.rstrip("/"), "/admin/"])
def test_it_shows_read_models_without_style_or_script(failing: Failure, staff_client: MakeClient, path: str) -> None:
    answer = staff_client("viewer").get(path)

    page = answer.content.decode()
    assert answer.status_code == 200
    assert "totals" in page and "degraded" in page
    assert " style=" not in page
    assert "unsafe-inline" not in answer["Content-Security-Policy"]
    assert "<script" not in page.split('id="content"')[1]


def test_it_opens_before_anything_was_built(totals: type[Totals], staff_client: MakeClient) -> None:
    client = staff_client("operator")

    assert "Nothing has been built yet" in client.get(BOARD).content.decode()
    assert "Nothing has been built yet" in client.get(PAGE).content.decode()
    assert client.get("/admin/projections/board/nothing/", headers={"Accept": "text/html"}).status_code == 404


@pytest.mark.feature("E9")
def test_it_offers_a_viewer_nothing_to_press(failing: Failure, staff_client: MakeClient) -> None:
    client = staff_client("viewer")

    page = client.get(PAGE).content.decode()
    refused = [
        client.post(PAGE, {"action": action}).status_code
        for action in (
            "replay",
            "replay_plan",
            "rebuild",
            "compare",
            "switch",
            "rollback",
            "retire",
            "cancel",
            "reset_ask",
            "reset",
        )
    ]

    assert "<button" not in page.split('id="content"')[1]
    assert set(refused) == {403}
    assert Build.objects.count() == 1


def test_an_operator_rebuilds_compares_switches_and_goes_back(failing: Failure, staff_client: MakeClient) -> None:
    client = staff_client("operator")
    old = live().pk

    client.post(PAGE, {"action": "rebuild"})
    projections_run_once()
    compared = client.post(PAGE, {"action": "compare"}).content.decode()
    client.post(PAGE, {"action": "switch"})
    new = live().pk
    client.post(PAGE, {"action": "rollback"})
    back = live().pk
    client.post(PAGE, {"action": "retire"})

    assert "the same" in compared
    assert new != old
    assert back == old
    assert Build.objects.get(pk=new).state == "retired"
    assert set(AuditEntry.objects.values_list("actor", flat=True)) == {"user:operator"}


def test_nobody_switches_to_differences_without_having_seen_them(failing: Failure, staff_client: MakeClient) -> None:
    client = staff_client("operator")
    with connection.cursor() as cursor:
        cursor.execute("UPDATE test_totals SET total = 77 WHERE account = 'a'")
    old = live().pk
    client.post(PAGE, {"action": "rebuild"})
    projections_run_once()

    shown = client.post(PAGE, {"action": "switch"}).content.decode()
    kept = live().pk
    client.post(PAGE, {"action": "switch", "accept": "differences"})

    assert "They differ; readers still see the old build." in shown
    assert "Switch although they differ" in shown
    assert kept == old != live().pk
    assert accounts()["a"] == (3, 1)


def test_an_operator_replays_one_aggregate_at_a_rate(failing: Failure, staff_client: MakeClient) -> None:
    client = staff_client("operator")
    with connection.cursor() as cursor:
        cursor.execute("UPDATE test_totals SET total = 77")
    asked = {"aggregate_id": "a", "rate": "50", "reason": "damaged by hand"}

    dry = client.post(PAGE, {"action": "replay_plan", **asked}).content.decode()
    refused = client.post(PAGE, {"action": "replay", **asked, "rate": "fast"}, follow=True).content.decode()
    client.post(PAGE, {"action": "replay", **asked})
    while operations_run_once():
        pass
    page = client.get(PAGE).content.decode()

    assert "<strong>1</strong> item, account a alone. Nothing was done." in dry
    assert 'value="50"' in dry and 'value="damaged by hand"' in dry
    assert "A number of items a second." in refused
    assert Operation.objects.get().rate == 50
    assert "completed, account a alone" in page
    assert accounts() == {"a": (3, 1), "b": (77, 1)}


def test_an_operator_replays_after_a_dry_run(failing: Failure, staff_client: MakeClient) -> None:
    client = staff_client("operator")
    with connection.cursor() as cursor:
        cursor.execute("UPDATE test_totals SET total = 77 WHERE account = 'a'")
    first = live().cursor - 3

    dry = client.post(PAGE, {"action": "replay_plan", "from_sequence": str(first), "to_sequence": ""}).content.decode()
    damaged = accounts()
    client.post(PAGE, {"action": "replay", "from_sequence": str(first), "reason": "damaged by hand"})
    while operations_run_once():
        pass
    nothing = client.post(PAGE, {"action": "replay_plan"}).content.decode()
    page = client.get(PAGE).content.decode()

    assert f"<strong>1</strong> item, positions {first} to" in dry
    assert "<strong>0</strong> items, nothing after the checkpoint." in nothing
    assert reverse("admin:operations_operation_change", args=[Operation.objects.get().pk]) in page
    assert damaged["a"] == (77, 1)
    assert accounts()["a"] == (3, 1)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"from_sequence": "x"}, "From position: A whole number."),
        ({"from_sequence": "999999999"}, "From position: The range is backwards, or begins beyond the end of the log."),
        ({"to_sequence": "-5"}, "To position: "),
        ({"to_sequence": "999999999"}, "To position: The log ends at "),
    ],
)
def test_it_says_what_is_wrong_with_a_range(
    failing: Failure, staff_client: MakeClient, given: dict[str, str], told: str
) -> None:
    answer = staff_client("operator").post(PAGE, {"action": "replay", **given}, follow=True)

    assert answer.status_code == 200
    assert f'class="error">{told}' in answer.content.decode()


def test_a_reset_is_asked_for_twice(failing: Failure, staff_client: MakeClient) -> None:
    client = staff_client("operator")

    asked = client.post(PAGE, {"action": "reset_ask"}).content.decode()
    kept = accounts()
    token = re.search(r'name="confirmation_token" value="([^"]+)"', asked)
    client.post(PAGE, {"action": "reset", "confirmation_token": "guessed"})
    still = accounts()
    assert token is not None
    client.post(PAGE, {"action": "reset", "confirmation_token": token[1]})

    assert kept == still != {}
    assert accounts() == {}


@pytest.mark.feature("E3")
def test_an_operator_decides_about_a_failure(failing: Failure, staff_client: MakeClient) -> None:
    client = staff_client("operator")
    path = f"/admin/projections/failure/{failing.pk}/change/"

    shown = client.get(path).content.decode()
    refused = client.post(path, {"strategy": "manual_fix", "note": ""}, follow=True).content.decode()
    client.post(path, {"strategy": "manual_fix", "note": "by hand"})

    failing.refresh_from_db()
    assert "test_totals_floor" in shown and "credit_one" in shown
    assert "needs a note" in refused
    assert (failing.state, failing.strategy, failing.resolved_by) == ("resolved", "manual_fix", "user:operator")


@pytest.mark.feature("E9")
def test_a_viewer_sees_a_failure_without_its_message(failing: Failure, staff_client: MakeClient) -> None:
    client = staff_client("viewer")
    path = f"/admin/projections/failure/{failing.pk}/change/"

    page = client.get(path).content.decode()
    client.post(path, {"strategy": "skip"})

    failing.refresh_from_db()
    assert "IntegrityError" in page and "test_totals_floor" not in page
    assert "<select" not in page.split('id="content"')[1]
    assert failing.state == "retrying"


def test_a_kind_of_failure_leads_to_the_list_in_which_all_of_it_is_decided(
    totals: type[Totals], staff_client: MakeClient
) -> None:
    publish_deposits(*[deposit(f"bad{n}", -500) for n in range(3)], deposit("odd", type="exploded"))
    projections_run_once()
    Failure.objects.update(state="manual", next_retry_at=None)
    kind = Failure.objects.get(aggregate_id="bad1").fingerprint
    client = staff_client("operator")
    address = f"/admin/projections/failure/?q={kind}"

    (group,) = ManualFailures().groups(fingerprint=kind)
    page = client.get(PAGE).content.decode()
    trouble = client.get(f"/admin/troubles/group/?source=read_models&group={kind}").content.decode()
    listed = client.get("/admin/projections/failure/").content.decode()
    told = client.post(
        address,
        {
            "action": "skip",
            "_selected_action": list(Failure.objects.filter(fingerprint=kind).values_list("pk", flat=True)),
            "reason": "a test",
        },
        follow=True,
    ).content.decode()

    assert (group.count, group.hours[-1], sum(group.hours)) == (3, 3, 3)
    assert f'href="{address}"' in page and f'href="{address}"' in trouble
    assert "bad1" in listed and f"totals #{live().pk}" in listed
    assert "3 go on." in told
    assert Failure.objects.exclude(state="resolved").get().aggregate_id == "odd"


@pytest.mark.feature("E3")
def test_it_shows_that_a_function_raised(
    failing: Failure, staff_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def credit(projection: Totals, batch: Batch) -> None:
        raise ValueError("private@example.com")

    monkeypatch.setattr(Totals, "_credit_one", credit)
    path = f"/admin/projections/failure/{failing.pk}/change/"

    answer = staff_client("operator").post(path, {"strategy": "compensate"}, follow=True)

    assert "The function credit_one raised ValueError; nothing was changed." in answer.content.decode()


def test_nothing_is_skipped_from_the_list_without_a_reason(failing: Failure, staff_client: MakeClient) -> None:
    client = staff_client("operator")

    told = client.post(
        "/admin/projections/failure/", {"action": "skip", "_selected_action": failing.pk}, follow=True
    ).content.decode()
    client.post("/admin/projections/failure/", {"action": "skip", "_selected_action": failing.pk, "reason": "a test"})

    before = failing.state
    failing.refresh_from_db()
    assert "Say why, beside the action" in told
    assert (before, failing.state, failing.resolution) == ("retrying", "resolved", "a test")


@pytest.mark.parametrize(
    ("action", "left"), [("skip", "resolved"), ("retry", "retrying"), ("rebuild_aggregate", "retrying")]
)
def test_many_failures_are_decided_at_once(
    totals: type[Totals], staff_client: MakeClient, action: str, left: str
) -> None:
    publish_deposits(*[deposit(f"bad{n}", -500) for n in range(3)])
    projections_run_once()
    client = staff_client("operator")
    chosen = list(Failure.objects.values_list("pk", flat=True))

    given = {"action": action, "_selected_action": chosen, "reason": "tests of the bank"}
    answer = client.post("/admin/projections/failure/", given, follow=True).content.decode()

    assert ("3 go on." if left == "resolved" else "3 are tried again by the next runner.") in answer
    assert set(Failure.objects.values_list("state", "strategy")) == {(left, action)}
    assert client.get("/admin/projections/failure/?projection=totals").status_code == 200
    assert client.get("/admin/projections/build/").status_code == 200
