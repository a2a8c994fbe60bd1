"""A person's decision about a conflict: by the API, the console and the command."""

from __future__ import annotations

import json
from io import StringIO
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse

from customers.models import Conflict, Customer, SyncState
from customers.services import customer_create, customer_update
from customers.sync.engine import sync_once
from customers.sync.resolutions import conflict_resolve
from customers.sync.troubles import FailedSyncs, OpenConflicts
from operations.models import AuditEntry
from tests.customers.conftest import Api
from tests.customers.sync.conftest import Side

pytestmark = [pytest.mark.django_db, pytest.mark.feature("G4")]


@pytest.fixture
def disputed(side: Side) -> Customer:
    """Name and phone were changed on both sides; the e-mail only there."""
    customer = side.linked(name="Ada", phone="0", email="ada@example.com")
    customer_update(customer_id=customer.pk, changes={"name": "Here", "phone": "1"})
    side.world.edit(side.state(customer).remote_id or "", name="There", phone="2")
    side.rest()
    assert set(Conflict.objects.open().values_list("field", flat=True)) == {"name", "phone"}
    side.world.calls.clear()
    return customer


@pytest.fixture
def repairer(db: None) -> Api:
    return Api("operations:write")


def about(field: str) -> Conflict:
    return Conflict.objects.open().get(field=field)


def resolution(customer: Customer, conflict: Conflict | int) -> str:
    number = conflict if isinstance(conflict, int) else conflict.pk
    return f"/api/v1/customers/{customer.pk}/conflicts/{number}/resolution/"


@pytest.mark.feature("G4", "H3")
def test_it_takes_each_fields_value_from_the_side_that_a_person_chose(
    side: Side, disputed: Customer, repairer: Api
) -> None:
    ours = repairer.post(resolution(disputed, about("name")), {"take": "ours"})
    theirs = repairer.post(resolution(disputed, about("phone")).removesuffix("/"), {"take": "theirs"})
    side.rest()

    disputed.refresh_from_db()
    assert (ours.status_code, theirs.status_code) == (200, 200)
    assert ours.json()["resolution"].startswith("ours, by key:")
    assert (disputed.name, disputed.phone) == ("Here", "2")
    assert (side.remote(disputed)["name"], side.remote(disputed)["phone"]) == ("Here", "2")
    assert (side.state(disputed).status, Conflict.objects.open().count()) == ("in_sync", 0)
    assert len(side.world.writes()) == 1


def test_it_writes_down_who_decided_and_no_value(disputed: Customer, repairer: Api) -> None:
    conflict = about("name")

    repairer.post(resolution(disputed, conflict), {"take": "ours", "reason": "They called."})

    entry = AuditEntry.objects.get(action="conflict.resolved")
    assert (entry.target, entry.actor[:4]) == (f"conflict:{conflict.pk}", "key:")
    assert entry.detail == {
        "take": "ours",
        "field": "name",
        "kind": "field",
        "customer": str(disputed.pk),
        "reason": "They called.",
    }


@pytest.mark.parametrize("take", ["ours", "theirs"])
def test_it_overwrites_no_value_that_nobody_has_seen(side: Side, disputed: Customer, take: str) -> None:
    """The side that gives way is changed once more before the decision is carried out."""
    conflict_resolve(conflict_id=about("name").pk, take=take, actor="user:ann")  # type: ignore[arg-type]
    if take == "ours":
        side.world.edit(side.state(disputed).remote_id or "", name="Newer")
    else:
        customer_update(customer_id=disputed.pk, changes={"name": "Newer"})
    side.rest()

    disputed.refresh_from_db()
    assert {disputed.name, side.remote(disputed)["name"]} == {"Newer", "Here" if take == "ours" else "There"}
    assert about("name").opened_at is not None


@pytest.mark.parametrize("step", ["taken", "fetched", "decided", "answered"])
def test_it_holds_though_a_worker_is_in_the_middle_of_a_look(side: Side, disputed: Customer, step: str) -> None:
    customer_update(customer_id=disputed.pk, changes={"email": "ada@example.org"})
    side.poke()
    conflict = about("name")

    def decide(reached: str) -> None:
        if reached == step and about_or_none("name") is not None:
            conflict_resolve(conflict_id=conflict.pk, take="ours", actor="user:ann")

    sync_once(side.state(disputed).pk, on_step=decide)
    side.rest()

    assert side.remote(disputed)["name"] == "Here"
    assert side.remote(disputed)["email"] == "ada@example.org"
    assert list(Conflict.objects.open().values_list("field", flat=True)) == ["phone"]


def about_or_none(field: str) -> Conflict | None:
    return Conflict.objects.open().filter(field=field).first()


def test_it_takes_our_value_where_the_catalogue_cannot_hold_theirs(side: Side) -> None:
    customer_create(name="Eve", email="eve@example.com")
    customer = side.linked(name="Ada", email="ada@example.com")
    side.world.edit(side.state(customer).remote_id or "", email="EVE@example.com")
    side.rest()
    conflict = about("email")

    conflict_resolve(conflict_id=conflict.pk, take="ours", actor="user:ann")
    side.rest()

    assert conflict.kind == Conflict.Kind.EMAIL_TAKEN
    assert side.remote(customer)["email"] == "ada@example.com"
    assert side.state(customer).status == "in_sync"


def test_it_refuses_what_cannot_be_decided_so(side: Side, disputed: Customer, repairer: Api) -> None:
    other = customer_create(name="Eve")
    conflict = about("name")
    gone = Conflict.objects.create(state=conflict.state, kind=Conflict.Kind.REMOTE_DELETED)
    attempts: list[tuple[str, Any, int, str]] = [
        (resolution(other, conflict), {"take": "ours"}, 404, "not_found"),
        (resolution(disputed, 0), {"take": "ours"}, 404, "not_found"),
        (resolution(disputed, 10**30), {"take": "ours"}, 404, "not_found"),
        (resolution(disputed, gone), {"take": "ours"}, 409, "conflict_undecidable"),
        (resolution(disputed, conflict), {"take": "mine"}, 400, "validation_failed"),
        (resolution(disputed, conflict), {}, 400, "validation_failed"),
        (resolution(disputed, conflict), {"take": "ours", "value": "x"}, 400, "validation_failed"),
        (resolution(disputed, conflict), ["ours"], 400, "validation_failed"),
    ]

    answers = [repairer.post(path, body) for path, body, _, _ in attempts]

    assert [(a.status_code, a.json()["code"]) for a in answers] == [(status, code) for _, _, status, code in attempts]
    assert Conflict.objects.open().count() == 3
    assert not AuditEntry.objects.filter(action="conflict.resolved").exists()


def test_it_is_decided_once(disputed: Customer, repairer: Api) -> None:
    path = resolution(disputed, about("name"))

    answers = [repairer.post(path, {"take": "ours"}), repairer.post(path, {"take": "theirs"})]

    assert [answer.status_code for answer in answers] == [200, 409]
    assert answers[1].json()["code"] == "conflict_closed"
    assert AuditEntry.objects.filter(action="conflict.resolved").count() == 1


def test_it_is_for_those_who_may_repair(disputed: Customer, api: Api) -> None:
    answer = api.post(resolution(disputed, about("name")), {"take": "ours"})

    assert answer.status_code == 403
    assert Conflict.objects.open().count() == 2


def staff(role: str) -> Client:
    user = User.objects.create_user(f"a {role}", is_staff=True)
    user.groups.add(Group.objects.get(name=role))
    client = Client()
    client.force_login(user)
    return client


@pytest.mark.feature("F3")
@pytest.mark.parametrize("take", ["ours", "theirs"])
def test_it_is_decided_in_the_console(side: Side, disputed: Customer, take: str) -> None:
    chosen = [about("name").pk, about("phone").pk]
    data = {"action": f"take_{take}", "_selected_action": chosen}

    answer = staff("operator").post(reverse("admin:customers_conflict_changelist"), data, follow=True)
    side.rest()

    disputed.refresh_from_db()
    expected = ("Here", "1") if take == "ours" else ("There", "2")
    assert b"2 conflicts are resolved." in answer.content
    assert (disputed.name, disputed.phone) == expected
    assert set(AuditEntry.objects.filter(action="conflict.resolved").values_list("actor", flat=True)) == {
        "user:a operator"
    }


@pytest.mark.feature("F3")
def test_it_is_decided_by_nobody_without_the_permission_and_by_no_get(disputed: Customer) -> None:
    url = reverse("admin:customers_conflict_changelist")
    data = {"action": "take_ours", "_selected_action": [about("name").pk]}

    staff("viewer").post(url, data, follow=True)
    staff("operator").get(url, data)

    assert Conflict.objects.open().count() == 2


@pytest.mark.feature("F3")
def test_it_says_what_it_could_not_decide_in_the_console(disputed: Customer) -> None:
    closed = about("name")
    conflict_resolve(conflict_id=closed.pk, take="ours", actor="user:ann")
    data = {"action": "take_theirs", "_selected_action": [closed.pk, about("phone").pk]}

    answer = staff("operator").post(reverse("admin:customers_conflict_changelist"), data, follow=True)

    assert b"1 conflict is resolved." in answer.content
    assert b"1 was left" in answer.content


def page_of(conflict: Conflict) -> str:
    return reverse("admin:customers_conflict_change", args=[conflict.pk])


def button(conflict: Conflict, verb: str) -> str:
    return reverse("admin:customers_conflict_do", args=[conflict.pk, verb])


@pytest.mark.feature("F3")
@pytest.mark.parametrize(("verb", "holds"), [("take-ours", "Here"), ("take-theirs", "There")])
def test_it_is_decided_on_its_own_page(side: Side, disputed: Customer, verb: str, holds: str) -> None:
    conflict, client = about("name"), staff("operator")

    shown = client.get(page_of(conflict)).content.decode()
    answer = client.post(button(conflict, verb), {"reason": "They called."}, follow=True).content.decode()
    side.rest()

    disputed.refresh_from_db()
    assert "Keep what is here" in shown and "Take what is there" in shown
    assert f'/customers/{disputed.pk}/conflicts/{conflict.pk}/resolution/ {{"take": "ours"' in shown.replace(
        "&quot;", '"'
    )
    assert "the other side gets it now." in answer
    assert "They called." in answer and "Keep what is here" not in answer
    assert disputed.name == side.remote(disputed)["name"] == holds
    assert AuditEntry.objects.get(action="conflict.resolved").detail["reason"] == "They called."


@pytest.mark.feature("F3")
def test_its_page_leads_to_the_customer_its_state_and_its_events(disputed: Customer) -> None:
    conflict, client = about("name"), staff("operator")
    listed = client.get(reverse("admin:customers_conflict_changelist")).content.decode()
    shown = client.get(page_of(conflict)).content.decode()

    assert "Here" in listed and "There" in listed and page_of(conflict) in listed
    for address in (
        reverse("admin:customers_customer_change", args=[disputed.pk]),
        reverse("admin:customers_syncstate_change", args=[conflict.state_id]),
        f"{reverse('admin:outbox_storedevent_changelist')}?q=customer:{disputed.pk}",
    ):
        assert f'href="{address}"' in shown
        assert client.get(address).status_code == 200


@pytest.mark.feature("F3")
def test_its_page_offers_a_decision_only_where_there_is_one(disputed: Customer) -> None:
    gone = Conflict.objects.create(state=about("name").state, kind=Conflict.Kind.REMOTE_DELETED)
    client = staff("operator")
    waiting = about("name").state

    shown = client.get(page_of(gone)).content.decode()
    refused = client.post(button(gone, "take-ours"), follow=True).content.decode()
    looked = client.post(button(gone, "look-again"), follow=True).content.decode()

    waiting.refresh_from_db()
    assert "Keep what is here" not in shown and "Take what is there" not in shown
    assert "Nothing was done." in refused
    assert "It is looked at again." in looked
    assert waiting.dirty_at is not None
    assert Conflict.objects.open().filter(pk=gone.pk).exists()


@pytest.mark.feature("F3")
@pytest.mark.parametrize("verb", ["take-ours", "take-theirs", "look-again"])
def test_its_buttons_are_for_those_who_may_and_take_post_alone(disputed: Customer, verb: str) -> None:
    conflict = about("name")
    viewer, operator = staff("viewer"), staff("operator")

    shown = viewer.get(page_of(conflict)).content.decode()
    statuses = [
        viewer.post(button(conflict, verb)).status_code,
        operator.get(button(conflict, verb)).status_code,
        operator.post(button(conflict, "other")).status_code,
        operator.post(page_of(conflict)).status_code,
        Client(enforce_csrf_checks=True).post(button(conflict, verb)).status_code,
    ]

    assert statuses == [403, 405, 404, 403, 403]
    assert "Keep what is here" not in shown and "Look again" not in shown
    assert Conflict.objects.open().count() == 2


@pytest.mark.feature("F3", "H4")
def test_troubles_lead_to_its_decision(disputed: Customer) -> None:
    group = f"{about('name').state.integration}|field"

    shown = staff("operator").get("/admin/troubles/group/", {"source": "conflicts", "group": group}).content.decode()

    assert f'<a class="button" href="{page_of(about("name"))}">Decide</a>' in shown
    assert "Retry the chosen ones" not in shown


def run(*arguments: str) -> str:
    out = StringIO()
    try:
        call_command("conflicts", *arguments, stdout=out)
    except SystemExit as ended:
        assert (arguments[0], ended.code) == ("list", 1)
    return out.getvalue()


@pytest.mark.feature("D10", "F3")
def test_a_taken_e_mail_says_everywhere_what_settles_it(side: Side) -> None:
    holder = side.linked(name="Ada", email="ada@example.com")
    state = SyncState.objects.create(integration="stripe", livemode=False, remote_id="cus_spare", status="orphaned")
    theirs = {"remote_id": "cus_spare", "email": "ADA@example.com"}
    conflict = Conflict.objects.create(state=state, kind="email_taken", field="email", theirs=theirs)
    advice = "Merge or delete the spare record there"

    page = staff("operator").get(page_of(conflict)).content.decode()
    out = StringIO()
    with pytest.raises(SystemExit) as ended:
        call_command("conflicts", "list", stdout=out)
    with pytest.raises(CommandError, match=advice):
        call_command("conflicts", "resolve", str(conflict.pk), "--take", "ours")

    assert advice in page and "The life of this record" in page
    assert f'href="{reverse("admin:customers_customer_change", args=[holder.pk])}"' in page
    assert ended.value.code == 1
    assert "  stripe cus_spare  " in out.getvalue() and "None" not in out.getvalue() and advice in out.getvalue()
    assert advice in OpenConflicts().groups()[0].message
    assert "belongs to no customer here" in FailedSyncs().groups()[0].message


@pytest.mark.feature("D10")
def test_it_is_listed_and_decided_by_the_command(side: Side, disputed: Customer) -> None:
    listed = json.loads(run("list", "--json", "--customer", str(disputed.pk)))
    name = next(each for each in listed if each["field"] == "name")
    said = run("resolve", str(name["id"]), "--take", "theirs", "--reason", "Asked.")
    side.rest()

    disputed.refresh_from_db()
    assert (name["base"], name["ours"], name["theirs"]) == ("Ada", "Here", "There")
    assert f"Conflict {name['id']} is resolved: theirs, by shell" in said
    assert disputed.name == "There"
    assert AuditEntry.objects.get(action="conflict.resolved").detail["reason"] == "Asked."
    assert f"  field phone  {disputed.pk}  agreed before " in run("list")


@pytest.mark.feature("D10")
def test_the_list_says_what_to_type_next_and_that_there_are_more(side: Side, disputed: Customer) -> None:
    listed = json.loads(run("list", "--json"))

    newest = run("list", "--limit", "1")
    whole = run("list", "--limit", str(len(listed)))

    assert len(listed) > 1
    assert f"manage.py conflicts resolve {listed[0]['id']} --take ours or theirs" in newest
    assert "These are the newest 1; --limit shows more." in newest
    assert "--limit" not in whole


@pytest.mark.feature("D10")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("resolve", "999999", "--take", "ours"), "There is no such conflict."),
        (("resolve", "1", "--take", "mine"), "invalid choice"),
        (("list", "--customer", "nobody"), "invalid id of a customer: 'nobody'"),
        (("list", "--limit", "0"), "--limit must be at least 1."),
    ],
)
def test_it_says_in_one_line_what_the_command_cannot_do(side: Side, arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(CommandError, match=message) as caught:
        run(*arguments)

    assert "\n" not in str(caught.value)
