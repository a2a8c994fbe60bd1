from __future__ import annotations

import html
import json
import re
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection, transaction
from django.test import Client

from operations.long_actions.runner import operations_run_once
from operations.models import AuditEntry
from outbox.errors import ErrorClass
from outbox.models import Delivery, StoredEvent, Subscription
from outbox.relay import relay_until_idle
from tests.conftest import LAST_POSITION
from tests.operations.conftest import MakeClient, staff_client
from tests.outbox.collecting import Collector, refusing
from tests.outbox.conftest import new, publish_all

__all__ = ["staff_client"]
RANGE = {"first": str(LAST_POSITION), "last": str(LAST_POSITION + 500_000)}

pytestmark = [pytest.mark.feature("F3", "A12", "D10", "H4"), pytest.mark.django_db(transaction=True)]


@pytest.fixture
def dead(collector: Collector) -> Delivery:
    from django.db import transaction

    from outbox.publishing import publish_many

    collector.refuse = refusing("bad", error_class=ErrorClass.PERMANENT)
    with transaction.atomic():
        publish_many(
            [new("bad", payload={"email": "ann@example.com"}, correlation_id="req-7"), new("good"), new("bad")]
        )
    relay_until_idle()
    return Delivery.objects.get()


def page(delivery: Delivery) -> str:
    return f"/admin/outbox/delivery/{delivery.pk}/change/"


def test_it_shows_one_failure_with_its_timeline_and_the_same_elsewhere(
    dead: Delivery, staff_client: MakeClient
) -> None:
    client = staff_client("operator")
    text = client.get(page(dead)).content.decode()

    assert "no bad today" in text
    assert "1 later event of its aggregate waits behind it." in text
    assert text.count("<td>1</td>") == 1
    assert "ann@example.com" in text
    assert "req-7" in text
    assert f"manage.py outbox_retry {dead.pk} --apply" in text
    assert f"/api/v1/admin/outbox/deliveries/{dead.pk}/retry" in text
    plan = re.search(r'href="(/admin/operations/operation/plan/[^"]*)"', text)
    assert plan is not None
    assert ">1<" in client.get(html.unescape(plan[1])).content.decode()


def test_the_items_of_a_replay_lead_to_their_deliveries(dead: Delivery, staff_client: MakeClient) -> None:
    client = staff_client("operator")
    pace = {"reason": "because", "canary": 0, "ramp_seconds": 0, "stop_error_percent": 50, "start": "on"}

    begun = client.post("/admin/operations/operation/plan/", {"kind": "outbox.replay", "filter": "{}", **pace})
    operations_run_once()

    assert f'<a href="{page(dead)}">{dead.pk}</a>' in client.get(begun["Location"]).content.decode()


def test_it_masks_the_payload_and_offers_nothing_to_those_who_may_only_look(
    dead: Delivery, staff_client: MakeClient
) -> None:
    client = staff_client("viewer")

    texts = [client.get(page(dead)).content.decode()]
    texts.append(client.get(f"/admin/outbox/storedevent/{dead.event_id}/change/").content.decode())

    assert all("ann@example.com" not in text and "•••" in text for text in texts)
    assert "Retry now" not in texts[0]
    assert "<form" not in texts[0].split('id="content"')[1]


def test_nothing_is_skipped_from_the_list_without_a_reason(dead: Delivery, staff_client: MakeClient) -> None:
    client = staff_client("operator")
    chosen = {"action": "skip", "_selected_action": [str(dead.pk)]}

    unexplained = client.post("/admin/outbox/delivery/", chosen, follow=True).content.decode()
    dead.refresh_from_db()
    before = dead.state
    explained = client.post("/admin/outbox/delivery/", {**chosen, "reason": "too large"}, follow=True).content.decode()

    dead.refresh_from_db()
    assert "Say why, beside the action" in unexplained
    assert "1 of 1 deliveries were skipped." in explained
    assert (before, dead.state) == ("dead", "resolved")


def test_it_retries_skips_and_replaces(collector: Collector, dead: Delivery, staff_client: MakeClient) -> None:
    client = staff_client("operator")
    address = f"/admin/outbox/delivery/{dead.pk}/do"

    retried = client.post(f"{address}/retry/", follow=True).content.decode()
    relay_until_idle()
    unexplained = client.post(f"{address}/skip/", {"reason": " "}, follow=True).content.decode()
    broken = client.post(f"{address}/replace/", {"reason": "typo", "payload": "{"}, follow=True).content.decode()
    edited = {"reason": "typo", "payload": json.dumps({"email": "bob@example.com"})}
    replaced = client.post(f"{address}/replace/", edited, follow=True).content.decode()
    again = client.post(f"{address}/skip/", {"reason": "x"}, follow=True).content.decode()

    assert "It is retried now." in retried
    assert "Say why. Nothing was done." in unexplained
    assert "This is no JSON that can be published. Nothing was published." in broken
    assert "was published in its place" in replaced
    assert "bob@example.com" in replaced
    assert "Nothing was done." in again
    assert Delivery.objects.get(pk=dead.pk).resolution == "replaced"
    actions = AuditEntry.objects.filter(actor="user:operator").exclude(action="session.opened").order_by("pk")
    assert list(actions.values_list("action", flat=True)) == ["delivery.retried", "delivery.replaced"]


def test_it_acts_on_what_was_chosen_in_the_list(collector: Collector, dead: Delivery, staff_client: MakeClient) -> None:
    client = staff_client("operator")
    collector.refuse = lambda event: None
    chosen = {"action": "retry", "_selected_action": [str(dead.pk)]}

    text = client.post("/admin/outbox/delivery/", chosen, follow=True).content.decode()
    relay_until_idle()

    assert "1 of 1 deliveries are retried." in text
    assert collector.sequences()["bad"] == [1, 2]


def test_it_finds_what_is_open_by_its_kind(dead: Delivery, staff_client: MakeClient) -> None:
    client = staff_client("viewer")

    found = client.get("/admin/outbox/delivery/", {"q": dead.fingerprint}).context["cl"].result_list
    none = client.get("/admin/outbox/delivery/", {"q": "0" * 32}).context["cl"].result_list

    assert [row.pk for row in found] == [dead.pk]
    assert list(none) == []


@pytest.mark.parametrize("term", ["257", "nothing-like-it", "0" * 32])
def test_it_searches_by_indexes_alone(dead: Delivery, staff_client: MakeClient, term: str) -> None:
    found = staff_client("viewer").get("/admin/outbox/delivery/", {"q": term}).context["cl"].queryset
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")
        # As many rows as make a difference, whatever other tests left to the planner.
        cursor.execute("UPDATE pg_class SET relpages = 1, reltuples = 1000000 WHERE oid = 'outbox_delivery'::regclass")
        plan = found.explain() if not found.query.is_empty() else ""
        transaction.set_rollback(True)

    assert "Seq Scan" not in plan
    assert "Index Scan Backward using outbox_delivery_pkey" not in plan


@pytest.mark.feature("D11")
def test_the_board_shows_and_steers_subscribers(collector: Collector, staff_client: MakeClient) -> None:
    publish_all("a", "b")
    client = staff_client("operator")
    address = "/admin/outbox/subscription/collector/do"

    paused = client.post(f"{address}/pause/", {"reason": "upgrade", "minutes": "10"}, follow=True).content.decode()
    one = Subscription.objects.get()
    resumed = client.post(f"{address}/resume/", follow=True).content.decode()
    limited = client.post(f"{address}/limit/", {"rate_limit": "5", "concurrency": ""}, follow=True).content.decode()
    probed = client.post(f"{address}/probe/", follow=True).content.decode()
    relay_until_idle()
    again = client.post(f"{address}/republish/", {**RANGE, "reason": "x"}, follow=True)

    assert "Collector is paused." in paused
    assert "upgrade" in paused
    assert one.paused_until is not None
    assert "Collector goes on." in resumed
    assert "The limits of collector are set." in limited
    assert Subscription.objects.get().rate_limit == 5
    assert "Collector is tried now." in probed
    assert "2 events of 2 aggregates go to collector again." in again.content.decode()


@pytest.mark.parametrize(
    ("verb", "body"),
    [
        ("pause", {}),
        ("pause", {"reason": "x", "minutes": "-1"}),
        ("limit", {"rate_limit": "fast"}),
        ("limit", {"concurrency": "65"}),
        ("republish", {"first": "0", "last": "1", "reason": "x"}),
        ("republish", {"first": "5", "last": "1", "reason": "x"}),
    ],
)
def test_the_board_does_nothing_with_what_means_nothing(
    collector: Collector, staff_client: MakeClient, verb: str, body: dict[str, str]
) -> None:
    text = staff_client("operator").post(f"/admin/outbox/subscription/collector/do/{verb}/", body, follow=True)

    assert "Nothing was done." in text.content.decode()
    assert not AuditEntry.objects.exclude(action="session.opened").exists()


BUTTONS: list[tuple[str, dict[str, Any], str]] = [
    ("/admin/outbox/delivery/{delivery}/do/retry/", {}, "retry_delivery"),
    ("/admin/outbox/delivery/{delivery}/do/skip/", {"reason": "x"}, "skip_delivery"),
    ("/admin/outbox/delivery/{delivery}/do/replace/", {"reason": "x", "payload": '{"email": "b"}'}, "edit_delivery"),
    ("/admin/outbox/subscription/collector/do/pause/", {"reason": "x"}, "pause_subscription"),
    ("/admin/outbox/subscription/collector/do/resume/", {}, "pause_subscription"),
    ("/admin/outbox/subscription/collector/do/probe/", {}, "pause_subscription"),
    ("/admin/outbox/subscription/collector/do/limit/", {"rate_limit": "5"}, "limit_subscription"),
    (
        "/admin/outbox/subscription/collector/do/republish/",
        {"reason": "x", **RANGE},
        "republish_subscription",
    ),
]


@pytest.mark.feature("A16")
@pytest.mark.parametrize(("address", "body", "permission"), BUTTONS, ids=[one[0].split("/do/")[1] for one in BUTTONS])
def test_each_button_is_post_only_and_asks_for_its_own_permission(
    dead: Delivery, address: str, body: dict[str, Any], permission: str
) -> None:
    address = address.format(delivery=dead.pk)
    user = User.objects.create(username="eve", is_staff=True)
    names = ["view_delivery", "view_subscription", "read_payload"]
    user.user_permissions.set(Permission.objects.filter(codename__in=names))

    def client() -> Client:
        made = Client()
        made.force_login(user)
        return made

    def done() -> Any:
        return AuditEntry.objects.filter(actor="user:eve").exclude(action="session.opened")

    read, without, changed = (
        client().get(address).status_code,
        client().post(address, body).status_code,
        done().exists(),
    )
    user.user_permissions.add(Permission.objects.get(codename=permission))
    allowed = client().post(address, body).status_code

    assert (read, without, changed, allowed) == (405, 403, False, 302)
    assert done().count() == 1


@pytest.mark.parametrize(
    "address", ["delivery/999999999/do/retry/", "delivery/1/do/drop/", "subscription/nobody/do/resume/"]
)
def test_there_is_no_other_button(collector: Collector, staff_client: MakeClient, address: str) -> None:
    assert staff_client("operator").post(f"/admin/outbox/{address}").status_code == 404


def test_replacing_needs_to_read_what_is_replaced(dead: Delivery) -> None:
    user = User.objects.create(username="eve", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=["view_delivery", "edit_delivery"]))
    client = Client()
    client.force_login(user)
    body = {"reason": "x", "payload": '{"email": "b"}'}

    assert client.post(f"/admin/outbox/delivery/{dead.pk}/do/replace/", body).status_code == 403
    assert StoredEvent.objects.count() == 3


@pytest.mark.feature("A16")
@pytest.mark.parametrize(
    "text",
    [
        "",
        "[" * 100_000,
        '{"email":' * 3_000 + "1" + "}" * 3_000,
        '{"email": NaN}',
        '{"email": 1e999}',
        '{"email": "a", "email": "b"}',
        '{"email": "a\\u0000b"}',
        '{"email": "\\ud800"}',
        '{"email": "a\x00b"}',
        '{"email": ' + "9" * 400 + "}",
        '"text"',
    ],
    ids=range(11),
)
def test_it_publishes_nothing_of_what_is_no_json(dead: Delivery, staff_client: MakeClient, text: str) -> None:
    client = staff_client("operator")
    before = StoredEvent.objects.count()

    answer = client.post(
        f"/admin/outbox/delivery/{dead.pk}/do/replace/", {"reason": "typo", "payload": text}, follow=True
    )

    assert answer.status_code == 200
    assert "Nothing was published." in " ".join(str(one) for one in answer.context["messages"])
    assert StoredEvent.objects.count() == before


@pytest.mark.feature("A16")
@pytest.mark.parametrize("verb", ["retry", "skip", "replace"])
def test_it_refuses_a_reason_that_cannot_be_stored(dead: Delivery, staff_client: MakeClient, verb: str) -> None:
    client = staff_client("operator")
    form = {"reason": "a\x00b", "payload": '{"email": "bob@example.com"}'}

    answer = client.post(f"/admin/outbox/delivery/{dead.pk}/do/{verb}/", form)

    assert answer.status_code == 400
    assert Delivery.objects.get(pk=dead.pk).state == "dead"


@pytest.mark.parametrize(
    "address",
    [
        "outbox/subscription/",
        "outbox/subscription/collector/change/",
        "outbox/delivery/",
        "outbox/delivery/{delivery}/change/",
        "outbox/storedevent/",
        "outbox/parkedmessage/",
        "operations/operation/",
        "operations/operation/plan/",
        "troubles/",
    ],
)
def test_staff_without_a_permission_sees_nothing(dead: Delivery, address: str) -> None:
    client = Client()
    client.force_login(User.objects.create_user("newcomer", is_staff=True))

    answer = client.get(f"/admin/{address.format(delivery=dead.pk)}")

    assert answer.status_code == 403
    assert "no bad today" not in answer.content.decode()
