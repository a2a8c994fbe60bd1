"""Every way in which Stripe can fail, through the whole system, counted in Stripe's own books.

One row a fault: where it strikes, how often, and how many requests may be needed. Whatever it is: a customer is created
once, changed and deleted once, both sides are the same at the end, and no edit of either side is lost.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

import pytest

from customers.models import Customer, SyncAccount, SyncRequest, SyncState, Webhook
from customers.services import customer_create, customer_delete, customer_update
from customers.sync.engine import sync_once
from outbox.models import StoredEvent
from tests.customers.stripe.conftest import StripeSide

pytestmark = [pytest.mark.feature("G1", "G2", "C1", "H1"), pytest.mark.django_db]

CREATE, UPDATE, DELETE = "POST /v1/customers", "POST /v1/customers/*", "DELETE /v1/customers/*"


@dataclass(frozen=True, slots=True)
class Row:
    """One fault.

    Attributes:
        name: of the row.
        fault: as the sandbox takes it.
        repeats: requests of the kind that it strikes, at most, beyond the one that is needed.
    """

    name: str
    fault: dict[str, Any]
    repeats: int = 1


ROWS = [
    Row("429", {"effect": "status", "status": 429}),
    Row("lock_timeout", {"effect": "lock_timeout"}),
    Row("409", {"effect": "status", "status": 409}),
    # A 500 is saved with its key and replayed: then the outcome is looked up, and the next key is used.
    Row("500 once", {"effect": "status", "status": 500}, repeats=2),
    Row("500 thrice", {"effect": "status", "status": 500, "times": 3}, repeats=5),
    Row("503 after the write", {"effect": "status", "status": 503, "phase": "after"}),
    Row("reset before the write", {"effect": "reset"}),
    Row("answer lost after the write", {"effect": "reset", "phase": "after"}),
    # Repeated without a pause here; until it has its effect, Stripe says that the key is in use.
    Row("late commit", {"effect": "late_commit", "seconds": 0.3}, repeats=100),
]
NAMES = [row.name for row in ROWS]


def settle(side: StripeSide) -> None:
    """Work until nothing is left to do; what waits for a time is due now."""
    for _ in range(200):
        side.poke()
        heard = side.hear()
        dirty = side.dirty()
        if not dirty and not heard:
            return
        for state in dirty:
            SyncAccount.objects.update(closed_until=None)
            sync_once(state.pk)
    raise AssertionError("It does not come to rest.")


def written(side: StripeSide) -> Counter[str]:
    """What took effect there, by kind, from the sandbox's request log."""
    kinds: Counter[str] = Counter()
    for line in side.sandbox.request_log:
        if line.wrote:
            kinds["create" if line.path == "/v1/customers" else line.method] += 1
    return kinds


def sent(side: StripeSide, route: str) -> int:
    return len(side.sandbox.request_log.matching(route))


def same(side: StripeSide, customer: Customer) -> None:
    customer.refresh_from_db()
    there = side.there(customer)
    assert (there["name"], there["phone"]) == (customer.name, customer.phone)
    assert (side.state(customer).status, side.state(customer).last_error_code) == ("in_sync", "")
    assert not SyncRequest.objects.in_flight().exists()


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls give up soon, so that a request that takes effect late is seen to."""
    monkeypatch.setattr("customers.stripe.client.READ_TIMEOUT", 0.2)
    monkeypatch.setattr("customers.stripe.client._clients", {})


@pytest.mark.parametrize("row", ROWS, ids=NAMES)
def test_a_customer_is_created_once(stripe_side: StripeSide, row: Row) -> None:
    customer = customer_create(name="Ada", email="ada@example.com", phone="1")
    stripe_side.sandbox.faults.add(route=CREATE, **row.fault)

    settle(stripe_side)

    assert len(stripe_side.sandbox.customers) == 1
    assert written(stripe_side) == {"create": 1}
    assert 1 < sent(stripe_side, CREATE) <= 1 + row.repeats
    same(stripe_side, customer)


@pytest.mark.parametrize("row", ROWS, ids=NAMES)
def test_a_change_here_is_made_there_once(stripe_side: StripeSide, row: Row) -> None:
    customer = customer_create(name="Ada", phone="1")
    settle(stripe_side)
    stripe_side.sandbox.faults.add(route=UPDATE, **row.fault)
    customer_update(customer_id=customer.pk, changes={"name": "Ada L."})

    settle(stripe_side)

    assert stripe_side.there(customer)["name"] == "Ada L."
    assert written(stripe_side) == {"create": 1, "POST": 1}
    assert sent(stripe_side, UPDATE) <= 1 + row.repeats
    same(stripe_side, customer)


@pytest.mark.parametrize("row", ROWS, ids=NAMES)
def test_changes_of_both_sides_meet(stripe_side: StripeSide, row: Row) -> None:
    customer = customer_create(name="Ada", phone="1")
    settle(stripe_side)
    stripe_side.sandbox.faults.add(route="* /v1/customers*", **row.fault)
    customer_update(customer_id=customer.pk, changes={"name": "Ada L."})
    stripe_side.sandbox.customer_edit(stripe_side.state(customer).remote_id or "", phone="2")

    settle(stripe_side)

    customer.refresh_from_db()
    assert (customer.name, customer.phone) == ("Ada L.", "2")
    same(stripe_side, customer)
    assert [event.type for event in StoredEvent.objects.order_by("id")] == [
        "customer.created",
        "customer.updated",
        "customer.updated",
    ]


@pytest.mark.parametrize("row", ROWS, ids=NAMES)
def test_a_customer_is_deleted_once(stripe_side: StripeSide, row: Row) -> None:
    """Among them the DELETE whose answer is lost: its repeat is answered with 404, which is success."""
    customer = customer_create(name="Ada")
    settle(stripe_side)
    stripe_side.sandbox.faults.add(route=DELETE, **row.fault)
    customer_delete(customer_id=customer.pk)

    settle(stripe_side)

    assert stripe_side.sandbox.customers == {}
    assert written(stripe_side) == {"create": 1, "DELETE": 1}
    assert sent(stripe_side, DELETE) <= 1 + row.repeats
    assert stripe_side.state(customer).status == "deleted"
    assert not SyncRequest.objects.in_flight().exists()


@pytest.mark.parametrize("disorder", ["duplicated", "reordered", "dropped", "delayed"])
def test_webhooks_in_any_disorder_end_in_the_same(stripe_side: StripeSide, disorder: str) -> None:
    customer = customer_create(name="Ada", phone="1")
    settle(stripe_side)
    remote_id = stripe_side.state(customer).remote_id or ""
    known = Webhook.objects.count()
    for number in range(4):
        stripe_side.sandbox.customer_edit(remote_id, name=f"Ada {number}")
    messages = stripe_side.sandbox.webhooks.pending()
    match disorder:
        case "duplicated":
            messages = [message for message in messages for _ in range(3)]
        case "reordered":
            messages.reverse()
        case "dropped":
            messages = messages[:1]
        case "delayed":
            stripe_side.post(messages[-1].body, **messages[-1].headers)
            settle(stripe_side)
            messages = messages[:-1]

    for message in messages:
        assert stripe_side.post(message.body, **message.headers).status_code == 200
    settle(stripe_side)

    assert Webhook.objects.count() - known == (1 if disorder == "dropped" else 4)
    customer.refresh_from_db()
    assert customer.name == "Ada 3"
    assert written(stripe_side)["POST"] == 0
    assert Customer.objects.count() == SyncState.objects.count() == 1
    same(stripe_side, customer)


@pytest.mark.parametrize("harm", ["body", "signature", "old", "secret"])
def test_a_tampered_webhook_changes_nothing_and_is_not_kept(stripe_side: StripeSide, harm: str) -> None:
    customer = customer_create(name="Ada", phone="1")
    settle(stripe_side)
    known = Webhook.objects.count()
    stripe_side.sandbox.customer_edit(stripe_side.state(customer).remote_id or "", name="Ada L.")
    (message,) = stripe_side.sandbox.webhooks.pending()
    body, headers = message.body, dict(message.headers)
    name = next(key for key in headers if key.lower() == "stripe-signature")
    match harm:
        case "body":
            document = json.loads(body)
            document["data"]["object"]["name"] = "Eve"
            body = json.dumps(document).encode()
        case "signature":
            headers[name] = re.sub(r"v1=\w{4}", "v1=0000", headers[name])
        case "old":
            moment, rest = headers[name].split(",", 1)
            headers[name] = f"t={int(moment.removeprefix('t=')) - 3600},{rest}"
        case "secret":
            headers[name] = headers[name].split(",", 1)[0] + ",v1=" + "0" * 64

    answer = stripe_side.post(body, **headers)
    settle(stripe_side)
    unchanged = Customer.objects.get().name
    stripe_side.post(message.body, **message.headers)
    settle(stripe_side)

    assert (answer.status_code, answer.json()["code"]) == (400, "signature_invalid")
    assert unchanged == "Ada"
    assert Webhook.objects.count() == known + 1
    assert Customer.objects.get().name == "Ada L."
