from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.db import transaction
from django.test import Client
from django.utils import timezone

from operations.keys import apikey_create
from operations.models import AuditEntry
from outbox.errors import ErrorClass
from outbox.models import Delivery, LogEntry, Replacement, StoredEvent, Subscription
from outbox.publishing import publish
from outbox.relay import relay_until_idle
from outbox.subscribers import Failure
from tests.conftest import LAST_POSITION
from tests.operations.conftest import MakeClient, api, issued, staff_client
from tests.outbox.collecting import Collector, Ledger, refusing
from tests.outbox.conftest import new, publish_all

__all__ = ["api", "issued", "staff_client"]
pytestmark = [pytest.mark.feature("A1", "A12"), pytest.mark.django_db(transaction=True)]

ADMIN = "/admin/outbox"
API = "/api/v1/admin/outbox"


@pytest.fixture
def dead(collector: Collector) -> Delivery:
    """A dead delivery, an event that waits behind it, one that went through and one that was never tried."""
    collector.refuse = refusing("bad", error_class=ErrorClass.PERMANENT)
    publish_all("bad", "good", "bad")
    relay_until_idle()
    publish_all("later")
    return Delivery.objects.get()


@pytest.mark.parametrize("prefix", [ADMIN, API])
@pytest.mark.parametrize("slash", ["", "/"])
def test_it_lists_dead_letters(api: Client, dead: Delivery, prefix: str, slash: str) -> None:
    answer = api.get(f"{prefix}/dead-letter{slash}")

    body = answer.json()
    assert (answer.status_code, set(body), body["count"]) == (200, {"events", "count"}, 1)
    (event,) = body["events"]
    assert (event["id"], event["delivery_id"], event["status"]) == (dead.event_id, dead.pk, "dead")
    assert (event["event_type"], event["aggregate_id"]) == ("customer.updated", "bad")
    assert (event["retry_count"], event["max_retries"], event["error_message"]) == (0, 2, "no bad today")
    assert event["payload"] == {"n": 1}
    assert answer["Cache-Control"] == "no-store"


@pytest.mark.parametrize("prefix", [ADMIN, API])
def test_it_retries_a_dead_event_by_its_id_or_uid(
    api: Client, collector: Collector, dead: Delivery, prefix: str
) -> None:
    collector.refuse = lambda event: None
    uid = StoredEvent.objects.get(pk=dead.event_id).uid

    answers = [api.post(f"{prefix}/retry/{uid}")]
    relay_until_idle()
    answers.append(api.post(f"{prefix}/retry/{dead.event_id}/"))

    assert [(answer.status_code, answer.json()) for answer in answers] == [
        (200, {"success": True}),
        (200, {"success": False}),
    ]
    assert collector.sequences()["bad"] == [1, 2]
    entry = AuditEntry.objects.get(action="delivery.retried")
    assert entry.actor.startswith("key:")


@pytest.mark.parametrize("name", ["0", "999999999", "-1", "x", "9" * 30, "019a8f6e-6a1b-7c3d-9e4f-5a6b7c8d9e0f"])
def test_it_knows_no_other_event(api: Client, dead: Delivery, name: str) -> None:
    answer = api.post(f"{ADMIN}/retry/{name}")

    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_it_tells_statistics(api: Client, dead: Delivery) -> None:
    body = api.get(f"{ADMIN}/statistics").json()

    figures = {name: body[name] for name in ("total_events", "total_processed", "total_errors", "pending", "dead")}
    assert figures == {"total_events": 4, "total_processed": 1, "total_errors": 1, "pending": 1, "dead": 1}
    assert (body["success_rate"], body["failure_rate"]) == (0.5, 0.5)
    assert body["oldest_pending_age_seconds"] >= 0
    (subscriber,) = body["subscribers"]
    assert (subscriber["name"], subscriber["processed"], subscriber["dead"]) == ("collector", 1, 1)
    # It came after the dead one of its aggregate, and is neither processed, nor dead, nor beyond a cursor.
    assert (body["blocked"], subscriber["blocked"]) == (1, 1)
    (topic,) = body["topics"]
    assert (topic["topic"], topic["pending"], topic["processed"], topic["dead"]) == ("customers", 1, 1, 1)


def test_rates_are_null_before_the_first_attempt(api: Client, collector: Collector) -> None:
    body = api.get(f"{API}/statistics/").json()

    assert (body["success_rate"], body["failure_rate"], body["total_events"]) == (None, None, 0)


def test_it_lists_what_waits_and_what_is_retried(api: Client, collector: Collector) -> None:
    collector.ladder = (3600.0,)
    collector.refuse = refusing("bad")
    publish_all("bad", "good")
    relay_until_idle()
    publish_all("later")

    body = api.get(f"{ADMIN}/pending").json()

    found = [(one["aggregate_id"], one["status"], one["retry_count"]) for one in body["events"]]
    assert found == [("bad", "retrying", 0), ("later", "pending", 0)]
    assert body["count"] == 2
    assert body["events"][0]["next_retry_at"] is not None
    assert body["events"][1]["subscribers"] == {"collector": "pending"}


def test_it_drains_the_log_by_hand(api: Client, collector: Collector) -> None:
    publish_all("a", "b")

    answer = api.post(f"{ADMIN}/process")

    assert answer.json() == {"success": True, "processed": 2}
    assert collector.sequences() == {"a": [1], "b": [1]}
    assert AuditEntry.objects.get(action="outbox.processed").detail == {"events": 2}


def test_it_lists_dead_letters_in_pages(api: Client, collector: Collector) -> None:
    collector.refuse = lambda event: Failure(event, ErrorClass.PERMANENT, "no", "no")
    publish_all(*[f"c{n}" for n in range(5)])
    relay_until_idle()

    first = api.get(f"{API}/dead-letter?page_size=3")
    rest = api.get(first["Link"].split(">")[0].removeprefix("<http://testserver"))

    names = [[one["aggregate_id"] for one in answer.json()["events"]] for answer in (first, rest)]
    assert [len(page) for page in names] == [3, 2]
    assert sorted(names[0] + names[1]) == [f"c{n}" for n in range(5)]
    assert "Link" not in rest
    assert first.json()["count"] == 5


@pytest.mark.parametrize(
    "query", ["page_size=0", "page_size=x", "cursor=-1", "colour=red", "page_size=501", "cursor=99999999999999999999"]
)
def test_it_refuses_a_query_that_means_nothing(api: Client, collector: Collector, query: str) -> None:
    assert api.get(f"{API}/dead-letter?{query}").status_code == 400


@pytest.mark.feature("H4")
def test_it_groups_failures_by_kind(api: Client, collector: Collector) -> None:
    collector.refuse = lambda event: Failure(
        event, ErrorClass.PERMANENT, "no", f"Row {event.id} is {'odd' if int(event.aggregate_id[1:]) % 2 else 'even'}"
    )
    publish_all(*[f"c{n}" for n in range(5)])
    relay_until_idle()

    groups = api.get(f"{API}/groups").json()["results"]

    assert [(one["count"], one["dead"], one["by_hour"][-1]) for one in groups] == [(3, 3, 3), (2, 2, 2)]
    assert groups[0]["first_seen"] <= groups[0]["last_seen"]
    assert groups[0]["replay"]["filter"] == {"fingerprint": groups[0]["fingerprint"]}
    assert api.get(f"{API}/groups?subscriber=nobody").json()["results"] == []


def test_it_shows_one_delivery_with_its_timeline(api: Client, collector: Collector) -> None:
    collector.ladder = (0.0,)
    collector.refuse = refusing("bad")
    publish_all("bad")
    relay_until_idle()
    key = Delivery.objects.get().pk

    body = api.get(f"{API}/deliveries/{key}").json()

    assert [(one["number"], one["outcome"]) for one in body["timeline"]] == [(2, "failed"), (1, "failed")]
    assert body["replacement"] is None


def test_it_acts_on_one_delivery(api: Client, collector: Collector, dead: Delivery) -> None:
    replaced = api.post(
        f"{API}/deliveries/{dead.pk}/replace", {"payload": {"n": 5}, "reason": "typo"}, "application/json"
    )
    again = api.post(f"{API}/deliveries/{dead.pk}/skip", {"reason": "x"}, "application/json")
    unknown = api.post(f"{API}/deliveries/{10**9}/retry", {}, "application/json")

    assert replaced.status_code == 201
    assert replaced.json()["diff"] == [{"pointer": "/n", "before": 1, "after": 5}]
    assert (again.status_code, again.json()["code"]) == (409, "action_refused")
    assert unknown.status_code == 404
    assert api.get(f"{API}/deliveries/{dead.pk}").json()["resolution"] == "replaced"


def test_it_tells_large_values_of_a_replacement_shortly(api: Client, collector: Collector) -> None:
    collector.refuse = refusing("bad", error_class=ErrorClass.PERMANENT)
    with transaction.atomic():
        publish(new("bad", payload={"text": "x" * 50_000, "list": list(range(1_000)), "n": 1}))
    relay_until_idle()
    address = f"{API}/deliveries/{Delivery.objects.get().pk}"
    payload = {"text": "small", "list": [], "n": 2}

    made = api.post(f"{address}/replace", {"payload": payload, "reason": "large"}, "application/json").json()

    assert made["diff"] == [
        {"pointer": "/list", "before": made["diff"][0]["before"], "after": [], "cut": ["before"]},
        {"pointer": "/n", "before": 1, "after": 2},
        {"pointer": "/text", "before": "x" * 1_000 + "…", "after": "small", "cut": ["before"]},
    ]
    assert made["diff"][0]["before"].startswith("[0,1,2,") and len(made["diff"][0]["before"]) == 1_001
    assert api.get(address).json()["replacement"]["diff"] == made["diff"]
    assert len(Replacement.objects.get().diff[2]["before"]) == 50_000


@pytest.mark.parametrize(
    "body",
    [{}, {"reason": ""}, {"reason": "x"}, {"payload": {"n": "two"}, "reason": "x"}, {"payload": [], "reason": "x"}],
)
def test_it_replaces_nothing_with_what_is_not_valid(api: Client, dead: Delivery, body: Any) -> None:
    answer = api.post(f"{API}/deliveries/{dead.pk}/replace", body, "application/json")

    assert (answer.status_code, answer["Content-Type"]) == (400, "application/problem+json")
    assert StoredEvent.objects.count() == 4


def test_it_skips_and_retries_one_delivery(api: Client, collector: Collector, dead: Delivery) -> None:
    retried = api.post(f"{API}/deliveries/{dead.pk}/retry", {}, "application/json")
    relay_until_idle()
    skipped = api.post(f"{API}/deliveries/{dead.pk}/skip", {"reason": "obsolete"}, "application/json")

    assert (retried.status_code, retried.json()["status"]) == (200, "retrying")
    assert (skipped.status_code, skipped.json()["resolution"]) == (200, "skipped")


@pytest.mark.feature("D11")
def test_it_shows_and_steers_subscribers(api: Client, collector: Collector) -> None:
    publish_all("a", "b")
    until = (timezone.now() + timedelta(hours=1)).isoformat()
    name = f"{API}/subscribers/collector"

    paused = api.post(f"{name}/pause", {"reason": "maintenance", "until": until}, "application/json").json()
    drained = relay_until_idle()
    resumed = api.post(f"{name}/resume").json()
    limited = api.patch(name, {"rate_limit": 5, "concurrency": 2}, "application/json").json()
    partly = api.patch(name, {"keep_successes": True}, "application/json").json()
    (listed,) = api.get(f"{API}/subscribers/").json()["results"]

    assert (paused["state"], paused["pause"]["reason"], drained) == ("paused", "maintenance", 0)
    assert paused["pause"]["by"].startswith("key:")
    assert (resumed["state"], resumed["pause"], resumed["backlog_events"]) == ("active", None, 2)
    assert (limited["rate_limit"], limited["concurrency"]) == (5, 2)
    assert (partly["rate_limit"], partly["keep_successes"]) == (5, True)
    assert listed == {**partly, "backlog_seconds": listed["backlog_seconds"]}


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("collector/pause", {}, 400),
        ("collector/pause", {"reason": "x", "until": "2001-01-01T00:00:00Z"}, 400),
        ("collector/pause", {"reason": "x", "until": "soon"}, 400),
        ("collector/pause", {"reason": "x", "colour": 1}, 400),
        ("nobody/pause", {"reason": "x"}, 404),
        ("nobody/resume", {}, 404),
        ("nobody/probe", {}, 404),
        ("nobody/republish", {"reason": "x", "first_position": 1, "last_position": 2}, 404),
        ("collector/republish", {"reason": "x", "first_position": 5, "last_position": 2}, 409),
        ("collector/republish", {"reason": "x", "first_position": 0, "last_position": 2}, 400),
        ("collector/republish", {"reason": "x", "first_position": 2**70, "last_position": 2}, 400),
    ],
)
def test_it_refuses_what_means_nothing(
    api: Client, collector: Collector, path: str, body: dict[str, Any], status: int
) -> None:
    assert api.post(f"{API}/subscribers/{path}", body, "application/json").status_code == status


@pytest.mark.parametrize("body", [{"rate_limit": 0}, {"rate_limit": "fast"}, {"concurrency": 65}, {"name": "x"}])
def test_it_refuses_limits_that_are_none(api: Client, collector: Collector, body: dict[str, Any]) -> None:
    assert api.patch(f"{API}/subscribers/collector", body, "application/json").status_code == 400


def test_it_publishes_a_range_again(api: Client, collector: Collector) -> None:
    publish_all("a", "a")
    relay_until_idle()
    first, last = LogEntry.objects.order_by("position").values_list("position", flat=True)
    body = {"reason": "lost there", "first_position": first, "last_position": last}

    counted = api.post(f"{API}/subscribers/collector/republish", {**body, "dry_run": True}, "application/json")
    before = relay_until_idle()
    done = api.post(f"{API}/subscribers/collector/republish", body, "application/json")
    relay_until_idle()

    assert counted.json() == done.json() == {"events": 2, "aggregates": 1}
    assert before == 0
    assert collector.sequences() == {"a": [1, 2, 1, 2]}


def test_it_says_that_a_subscriber_takes_each_event_once(api: Client, ledger: Ledger) -> None:
    body = {"reason": "x", "first_position": 1, "last_position": 2}

    assert api.post(f"{API}/subscribers/ledger/republish", body, "application/json").status_code == 409


ACTIONS: list[tuple[str, str, str, dict[str, Any], str]] = [
    ("retry", "post", "retry/{event}", {}, "retry_delivery"),
    ("process", "post", "process", {}, "process_log"),
    ("delivery retry", "post", "deliveries/{delivery}/retry", {}, "retry_delivery"),
    ("skip", "post", "deliveries/{delivery}/skip", {"reason": "x"}, "skip_delivery"),
    ("replace", "post", "deliveries/{delivery}/replace", {"reason": "x", "payload": {"n": 3}}, "edit_delivery"),
    ("pause", "post", "subscribers/collector/pause", {"reason": "x"}, "pause_subscription"),
    ("resume", "post", "subscribers/collector/resume", {}, "pause_subscription"),
    ("probe", "post", "subscribers/collector/probe", {}, "pause_subscription"),
    ("limit", "patch", "subscribers/collector", {"rate_limit": 5}, "limit_subscription"),
    (
        "republish",
        "post",
        "subscribers/collector/republish",
        {"reason": "x", "first_position": LAST_POSITION, "last_position": LAST_POSITION + 500_000},
        "republish_subscription",
    ),
]


@pytest.mark.feature("A16")
@pytest.mark.parametrize(("_name", "method", "path", "body", "permission"), ACTIONS, ids=[one[0] for one in ACTIONS])
def test_each_action_asks_for_its_own_permission_and_scope(
    dead: Delivery, _name: str, method: str, path: str, body: dict[str, Any], permission: str
) -> None:
    reader = apikey_create(name="reader", scopes=["operations:read"])
    address = f"{API}/{path.format(event=dead.event_id, delivery=dead.pk)}"
    user = User.objects.create(username="eve", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="scope_operations_write"))

    def ask(client: Client) -> int:
        call: Callable[..., Any] = getattr(client, method)
        return int(call(address, body, "application/json").status_code)

    def done() -> Any:
        return AuditEntry.objects.filter(actor="user:eve").exclude(action="session.opened")

    def person() -> Client:
        client = Client()
        client.force_login(user)
        return client

    by_key = ask(Client(headers={"Authorization": reader.authorization}))
    without = ask(person())
    changed = done().exists()
    user.user_permissions.add(Permission.objects.get(codename=permission))
    allowed = ask(person())

    assert (by_key, without, changed) == (403, 403, False)
    assert allowed in (200, 201)
    assert done().count() == 1


@pytest.mark.feature("A16")
def test_payloads_are_masked_for_those_who_may_not_read_them(dead: Delivery, staff_client: MakeClient) -> None:
    reader = apikey_create(name="reader", scopes=["operations:read"])

    shown = [
        client.get(f"{API}/dead-letter").json()["events"][0]["payload"]
        for client in (
            Client(headers={"Authorization": reader.authorization}),
            staff_client("viewer"),
            staff_client("operator"),
        )
    ]

    assert shown == [{"n": "•••"}, {"n": "•••"}, {"n": 1}]


@pytest.mark.parametrize("path", ["statistics", "pending", "dead-letter"])
def test_reading_needs_the_scope(collector: Collector, path: str) -> None:
    other = apikey_create(name="other", scopes=["customers:read"])

    assert Client().get(f"{ADMIN}/{path}").status_code == 401
    assert Client(headers={"Authorization": other.authorization}).get(f"{ADMIN}/{path}").status_code == 403


def test_get_changes_nothing(api: Client, dead: Delivery) -> None:
    for path in (f"retry/{dead.event_id}", "process"):
        assert api.get(f"{ADMIN}/{path}").status_code == 405

    assert Delivery.objects.get().state == "dead"
    assert Subscription.objects.get().paused_at is None
