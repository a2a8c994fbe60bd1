from __future__ import annotations

import html
import json
import re

import pytest
from django.test import Client
from django.urls import reverse

from operations.long_actions.kinds import Plan, kind_named
from operations.long_actions.runner import operations_run_once
from operations.models import AuditEntry, Operation
from tests.operations.conftest import MakeClient
from tests.operations.long_actions.acting import Acting, numbers_make, refusing
from tests.operations.long_actions.conftest import planned, started
from tests.operations.test_console import inline_in

pytestmark = pytest.mark.feature("F3", "H4")

PLAN = "/admin/operations/operation/plan/"
PACE = {"reason": "because", "canary": 2, "ramp_seconds": 0, "stop_error_percent": 50}


def page_of(operation: Operation, query: str = "") -> str:
    return reverse("admin:operations_operation_change", args=[operation.pk]) + query


def steer(client: Client, operation: Operation, verb: str, **more: str) -> int:
    address = reverse("admin:operations_operation_steer", args=[operation.pk, verb])
    return client.post(address, more).status_code


def test_it_shows_progress_that_moves_without_script(acting: Acting, staff_client: MakeClient) -> None:
    numbers_make(10, odd=[2])
    acting.refuse = refusing(3)
    client, operation = staff_client("operator"), started()

    running = client.get(page_of(operation))
    operations_run_once()
    over = client.get(page_of(operation))

    assert '<meta http-equiv="refresh" content="2">' in running.content.decode()
    text = over.content.decode()
    assert "refresh" not in text
    assert '<progress max="100" value="100.0">' in text
    assert "no 3 today" in text
    assert "odd one out" in text
    assert "manage.py operations show" in text
    for answer in (running, over):
        assert inline_in(answer.content) == []


def test_it_is_held_still_for_those_who_use_the_keyboard(acting: Acting, staff_client: MakeClient) -> None:
    numbers_make(10)
    client, operation = staff_client("operator"), started()

    following = client.get(page_of(operation), {"items": "failed"}).content.decode()
    link = re.search(r'href="([^"]*)" autofocus>Hold still<', following)
    assert link is not None
    still = client.get(page_of(operation) + html.unescape(link[1])).content.decode()

    assert ('http-equiv="refresh"' in following, 'http-equiv="refresh"' in still) == (True, False)
    assert ('value="Pause"' in still, "autofocus" in still, ">Follow<" in still) == (True, False, True)
    assert 'href="?items=failed" aria-current="true"' in still


def test_it_pages_items_by_their_state(
    acting: Acting, staff_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("operations.long_actions.admin.ITEMS_SHOWN", 3)
    numbers_make(10)
    acting.refuse = refusing(2, 4, 6, 8)
    operation, client = started(), staff_client("viewer")
    operations_run_once()

    first = client.get(page_of(operation, "?items=failed"))
    rest = client.get(page_of(operation, f"?items=failed&after={first.context['next_after']}"))

    assert [item.key for item, *_ in first.context["items"]] == ["2", "4", "6"]
    assert [item.key for item, *_ in rest.context["items"]] == ["8"]
    for query in ("?items=x&after=x", "?after=" + "9" * 30, "?after=-1"):
        assert client.get(page_of(operation, query)).status_code == 200


def test_it_steers_by_buttons(acting: Acting, staff_client: MakeClient) -> None:
    client, operation = staff_client("operator"), planned()

    for verb, state in [("start", "running"), ("pause", "paused"), ("resume", "running"), ("cancel", "cancelled")]:
        assert f"/steer/{verb}/" in client.get(page_of(operation)).content.decode()
        assert steer(client, operation, verb) == 302
        operation.refresh_from_db()
        assert operation.state == state

    assert "/steer/" not in client.get(page_of(operation)).content.decode()
    assert AuditEntry.objects.filter(actor="user:operator", action__startswith="operation.").count() == 4


def test_it_says_why_it_does_not_obey(acting: Acting, staff_client: MakeClient) -> None:
    client, operation = staff_client("operator"), planned()

    address = reverse("admin:operations_operation_steer", args=[operation.pk, "resume"])
    answer = client.post(address, follow=True)

    assert "it cannot resume" in answer.content.decode()


@pytest.mark.parametrize("verb", ["start", "pause", "resume", "cancel"])
def test_it_lets_viewers_look_and_not_touch(acting: Acting, staff_client: MakeClient, verb: str) -> None:
    client, operation = staff_client("viewer"), planned()

    assert client.get(page_of(operation)).status_code == 200
    assert "/steer/" not in client.get(page_of(operation)).content.decode()
    assert steer(client, operation, verb) == 403
    assert client.get(PLAN).status_code == 403
    operation.refresh_from_db()
    assert operation.state == "planned"


def test_it_mutates_nothing_by_get(acting: Acting, staff_client: MakeClient) -> None:
    client, operation = staff_client("operator"), planned()

    assert client.get(reverse("admin:operations_operation_steer", args=[operation.pk, "start"])).status_code == 405
    assert client.post(page_of(operation), {"state": "running"}).status_code == 403
    assert client.get("/admin/operations/operation/999999/change/").status_code == 404


def test_it_asks_for_the_permission_of_the_kind_too(
    acting: Acting, staff_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Acting, "permission", "operations.revoke_apikey")
    client, operation = staff_client("operator"), planned()

    assert steer(client, operation, "start") == 403
    assert client.get(PLAN, {"kind": Acting.name}).status_code == 403
    assert Acting.name not in client.get(PLAN).content.decode()
    assert steer(client, operation, "cancel") == 302


def test_it_shows_the_dry_run_before_it_plans(acting: Acting, staff_client: MakeClient) -> None:
    numbers_make(10, odd=[2])
    client = staff_client("operator")
    what = {"kind": Acting.name, "filter": json.dumps({"up_to": 10})}

    dry = client.get(PLAN, what)
    assert not Operation.objects.exists()
    kept = client.post(PLAN, {**what, **PACE, "start": "on"})

    assert dry.context["plan"].eligible == 9
    assert "not eligible: odd one out" in dry.content.decode()
    assert inline_in(dry.content) == []
    operation = Operation.objects.get()
    assert kept["Location"] == page_of(operation)
    assert (operation.state, operation.canary, operation.reason) == ("running", 2, "because")


def test_it_starts_what_it_plans_only_when_told_to(acting: Acting, staff_client: MakeClient) -> None:
    numbers_make(3)
    client = staff_client("operator")
    what = {"kind": Acting.name, "filter": json.dumps({"up_to": 10})}

    dry = client.get(PLAN, what).content.decode()
    client.post(PLAN, {**what, **PACE})
    client.post(PLAN, {**what, **PACE, "start": "Plan and start"})

    assert ('value="Plan">' in dry, 'name="start" value="Plan and start">' in dry) == (True, True)
    assert list(Operation.objects.order_by("pk").values_list("state", flat=True)) == ["planned", "running"]


def test_what_it_would_act_upon_leads_to_its_page(
    acting: Acting, staff_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers_make(1)
    what = {"kind": Acting.name, "filter": json.dumps({"up_to": 10})}
    sampled = Plan(eligible=1, sample=["1"])
    monkeypatch.setattr(Acting, "plan", lambda kind, frozen: sampled)
    client = staff_client("operator")

    without = client.get(PLAN, what).content.decode()
    monkeypatch.setattr(Acting, "item_page", "admin:operations_operation_change")
    with_page = client.get(PLAN, what).content.decode()

    assert "Among them: <code>1</code>" in without
    assert 'Among them: <a href="/admin/operations/operation/1/change/">1</a>' in with_page


def test_only_what_goes_on_looks_like_the_way_on(acting: Acting, staff_client: MakeClient) -> None:
    numbers_make(1)
    acting.refuse = refusing(1)
    operation = started(canary=1)
    operations_run_once()

    page = staff_client("operator").get(page_of(operation)).content.decode()

    assert 'class="default" value="Resume"' in page and 'class="quiet-button" value="Cancel"' in page
    assert "nothing is left, so it will be completed" in page


@pytest.mark.parametrize(
    "changes",
    [
        {"filter": "{"},
        {"filter": "[]"},
        {"filter": '{"up_to": "x"}'},
        {"filter": '{"up_to": 1, "up_to": 2}'},
        {"reason": ""},
        {"reason": " "},
        {"canary": "-1"},
        {"ramp_seconds": "5"},
        {"stop_error_percent": "0"},
        {"kind": "no.such"},
    ],
)
def test_it_plans_nothing_that_makes_no_sense(
    acting: Acting, staff_client: MakeClient, changes: dict[str, str]
) -> None:
    what = {"kind": Acting.name, "filter": '{"up_to": 10}', **PACE, **changes}

    answer = staff_client("operator").post(PLAN, what)

    assert answer.status_code in {200, 400}
    assert not Operation.objects.exists()


def test_it_says_what_filters_may_name(staff_client: MakeClient) -> None:
    page = staff_client("operator").get(PLAN).content.decode()

    for kind in (kind_named("outbox.replay"), kind_named("projections.replay")):
        assert kind is not None
        assert f"What the filter of {kind.name} may name" in page
        assert all(f"<code>{key}</code>" in page for key in kind.filter_keys)
    assert "{&quot;subscriber&quot;: &quot;kafka&quot;" in page


def test_it_explains_the_filter_of_the_kind_that_was_chosen_alone(staff_client: MakeClient) -> None:
    client = staff_client("operator")
    what = {"kind": "outbox.replay", "filter": "{}"}

    counted = client.get(PLAN, what).content.decode()
    refused = client.get(PLAN, what | {"filter": "{"}).content.decode()

    assert [page.count("What the filter of") for page in (counted, refused)] == [1, 1]
    # It would push what was counted off the screen.
    assert ("<details open>" in counted, "<details open>" in refused) == (False, True)


def test_an_example_of_a_filter_is_one_that_can_be_counted(staff_client: MakeClient) -> None:
    kind = kind_named("outbox.replay")
    assert kind is not None

    answer = staff_client("operator").get(PLAN, {"kind": kind.name, "filter": json.dumps(kind.filter_example)})

    assert answer.status_code == 200
    assert answer.context["plan"].eligible == 0


def test_it_says_that_there_are_no_operations_yet(staff_client: MakeClient) -> None:
    page = staff_client("viewer").get("/admin/operations/operation/").content.decode()

    assert "There are no operations yet." in page
