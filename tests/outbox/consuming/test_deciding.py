"""What people do with consumed dead letters, in the console and over the API."""

from __future__ import annotations

import html
import json
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client

from operations.models import AuditEntry, Operation
from outbox.consuming.handlers import handles, unregister
from outbox.consuming.retrying import Retries
from outbox.errors import PermanentError
from outbox.models import ParkedMessage
from outbox.policies import DeadPolicy
from tests.operations.conftest import MakeClient, api, issued, staff_client
from tests.outbox.consuming.conftest import Book, Kafka
from tests.outbox.consuming.test_redriving import handle, record

__all__ = ["api", "issued", "staff_client"]
pytestmark = [pytest.mark.feature("A11", "A12", "F3", "D10")]
API = "/api/v1/admin/outbox/consumed"


@pytest.fixture
def dead(kafka: Kafka, book: Book) -> ParkedMessage:
    """A dead message that holds back a later one of its aggregate, and one of another aggregate."""
    unregister(group=kafka.group)
    handles("orders", "order.placed", group=kafka.group, dead_policy=DeadPolicy.BLOCK)(book.write)
    book.fails = lambda message: PermanentError("No such article.") if message.sequence == 1 else None
    handle(kafka, record(kafka, "a", 1), record(kafka, "b", 1), record(kafka, "a", 2))
    ParkedMessage.objects.filter(event_id="a-1").update(value=b'{"email": "ann@example.com"}')
    book.fails = lambda message: None
    return ParkedMessage.objects.get(event_id="a-1")


def page(parked: ParkedMessage) -> str:
    return f"/admin/outbox/parkedmessage/{parked.pk}/change/"


def told(answer: Any) -> str:
    return html.unescape(answer.content.decode())


def post(client: Client, address: str, body: dict[str, Any]) -> Any:
    return client.post(address, json.dumps(body), content_type="application/json")


def test_the_page_shows_the_failure_what_waits_and_the_same_elsewhere(
    dead: ParkedMessage, staff_client: MakeClient
) -> None:
    text = told(staff_client("operator").get(page(dead)))

    assert "No such article." in text
    assert "wait behind it: 1 by now" in text
    assert "ann@example.com" in text
    assert f"manage.py kafka_redrive --group {dead.consumer_group} {dead.pk} --apply" in text
    assert f"{API}/{dead.pk}/discard" in text
    assert "Retry now" in text
    assert "Give up" in text


def test_the_page_masks_the_payload_and_offers_nothing_to_those_who_may_only_look(
    dead: ParkedMessage, staff_client: MakeClient
) -> None:
    client = staff_client("viewer")

    text = told(client.get(page(dead)))
    refused = client.post(f"/admin/outbox/parkedmessage/{dead.pk}/do/redrive/")

    assert "ann@example.com" not in text
    assert "•••" in text
    assert "<form" not in text.split('id="content"')[1]
    assert refused.status_code == 403


def test_the_page_shows_a_body_that_is_no_json_to_those_who_may_read_it(
    dead: ParkedMessage, staff_client: MakeClient
) -> None:
    body = b"\x00\xffann@example.com <script>alert(1)</script> " + b"x" * 5_000
    ParkedMessage.objects.filter(pk=dead.pk).update(value=body)

    shown = staff_client("admin").get(page(dead)).content.decode()
    masked = told(staff_client("viewer").get(page(dead)))

    assert f"{len(body)} bytes that are no JSON, the first 4000 of them:" in shown
    assert "\\x00\\xffann@example.com &lt;script&gt;alert(1)" in shown
    assert "x" * 5_000 not in shown
    assert f"{len(body)} bytes that are no JSON" in masked
    assert "ann@example.com" not in masked


def test_a_button_retries_it_and_what_waited_follows(
    kafka: Kafka, book: Book, dead: ParkedMessage, staff_client: MakeClient
) -> None:
    client = staff_client("operator")

    answer = client.post(f"/admin/outbox/parkedmessage/{dead.pk}/do/redrive/", {"reason": "stocked"}, follow=True)
    Retries(kafka.group, ["orders"]).serve_once()
    again = client.post(f"/admin/outbox/parkedmessage/{dead.pk}/do/redrive/", follow=True)

    assert "retried by the next worker" in told(answer)
    assert "It is not dead. Nothing was done." in told(again)
    assert book.of("a") == [1, 2]
    entry = AuditEntry.objects.get(target=f"consumed:{dead.pk}")
    assert (entry.action, entry.actor, entry.detail["reason"]) == ("consumed.retried", "user:operator", "stocked")


def test_a_button_gives_it_up_for_a_reason(
    kafka: Kafka, book: Book, dead: ParkedMessage, staff_client: MakeClient
) -> None:
    client = staff_client("operator")
    address = f"/admin/outbox/parkedmessage/{dead.pk}/do/discard/"

    unexplained = client.post(address, {"reason": " "}, follow=True)
    looked_at = client.get(address)
    done = client.post(address, {"reason": "cancelled by phone"}, follow=True)
    Retries(kafka.group, ["orders"]).serve_once()

    assert "Say why. Nothing was done." in told(unexplained)
    assert looked_at.status_code == 405
    assert "Discarded by user:operator: cancelled by phone" in told(done)
    assert book.of("a") == [2]


def test_each_action_has_a_permission_of_its_own(dead: ParkedMessage, client: Client) -> None:
    user = User.objects.create(username="sam", is_staff=True)
    names = ["view_parkedmessage", "discard_parkedmessage", "scope_operations_read", "scope_operations_write"]
    user.user_permissions.set(Permission.objects.filter(codename__in=names))
    client.force_login(user)

    text = told(client.get(page(dead)))
    answers = [
        client.post(f"/admin/outbox/parkedmessage/{dead.pk}/do/redrive/").status_code,
        post(client, f"{API}/{dead.pk}/redrive", {}).status_code,
        post(client, f"{API}/{dead.pk}/discard", {"reason": "old"}).status_code,
    ]

    assert "Retry now" not in text
    assert "Give up" in text
    assert answers == [403, 403, 200]


def test_what_was_chosen_in_the_list_is_sent_again_given_up_or_planned(
    kafka: Kafka, book: Book, dead: ParkedMessage, staff_client: MakeClient
) -> None:
    client = staff_client("operator")
    other = ParkedMessage.objects.get(event_id="b-1")
    chosen = {"_selected_action": [str(dead.pk), str(other.pk)]}
    address = "/admin/outbox/parkedmessage/"

    planned = client.post(address, {"action": "plan", **chosen})
    dry = told(client.get(planned["Location"]))
    kept = client.post(
        planned["Location"],
        {
            "kind": "outbox.redrive",
            "filter": json.dumps({"ids": [dead.pk, other.pk]}),
            "reason": "stocked",
            "canary": "0",
            "ramp_seconds": "0",
            "stop_error_percent": "50",
        },
    )
    give_up = {"action": "discard", "_selected_action": [str(other.pk)]}
    unexplained = told(client.post(address, give_up, follow=True))
    discarded = told(client.post(address, {**give_up, "reason": "no such order"}, follow=True))
    redriven = told(client.post(address, {"action": "redrive", **chosen}, follow=True))

    assert ">2<" in dry
    assert kept.status_code == 302
    assert Operation.objects.get().filter["ids"] == [dead.pk, other.pk]
    assert "Say why" in unexplained and "given up" not in unexplained
    assert "1 of 1 messages were given up." in discarded
    assert "1 of 2 messages are retried." in redriven


def test_the_api_lists_shows_sends_again_and_gives_up(
    kafka: Kafka, book: Book, dead: ParkedMessage, api: Client
) -> None:
    first = api.get(f"{API}?group={kafka.group}&page_size=1")
    second = api.get(first["Link"].split(">")[0][1:])
    waiting = api.get(f"{API}/?state=waiting").json()["results"]
    shown = api.get(f"{API}/{dead.pk}").json()
    redriven = post(api, f"{API}/{dead.pk}/redrive", {"reason": "stocked"})
    again = post(api, f"{API}/{dead.pk}/redrive/", {})
    other = first.json()["results"][0]["id"]
    discarded = post(api, f"{API}/{other}/discard", {"reason": "old"}).json()
    Retries(kafka.group, ["orders"]).serve_once()

    assert [one["event_id"] for one in first.json()["results"] + second.json()["results"]] == ["b-1", "a-1"]
    assert "Link" not in second
    assert [one["event_id"] for one in waiting] == ["a-2"]
    assert (shown["waiting_behind"], shown["blocks"], shown["payload"]) == (1, True, {"email": "ann@example.com"})
    assert shown["headers"]["ce_type"] == "order.placed"
    assert redriven.json()["status"] == "retrying"
    assert (again.status_code, again.json()["code"]) == (409, "action_refused")
    assert (discarded["status"], discarded["resolution"], discarded["resolved_reason"]) == (
        "resolved",
        "discarded",
        "old",
    )
    assert book.of("a") == [1, 2]


@pytest.mark.parametrize(
    ("address", "status"),
    [
        ("?state=lost", 400),
        ("?page_size=0", 400),
        ("?cursor=x", 400),
        ("?colour=red", 400),
        ("/0", 404),
        ("/99999999999999999999", 404),
        ("/x", 404),
    ],
)
def test_the_api_refuses_what_means_nothing(address: str, status: int, api: Client, db: None) -> None:
    assert api.get(f"{API}{address}").status_code == status


@pytest.mark.parametrize("ids", [[], ["1"], [True], [-1], 5, [2**63], list(range(1_001))])
def test_a_redrive_refuses_numbers_that_are_none(ids: Any, api: Client, db: None) -> None:
    body = {"kind": "outbox.redrive", "filter": {"ids": ids}, "dry_run": True}

    assert post(api, "/api/v1/admin/operations/", body).status_code == 400
