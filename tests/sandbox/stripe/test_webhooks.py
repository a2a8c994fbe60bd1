from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import stripe

from tests.sandbox.stripe.calling import send
from zenskar.sandbox.stripe.clock import Clock
from zenskar.sandbox.stripe.core import StripeSandbox
from zenskar.sandbox.stripe.server import StripeSandboxServer
from zenskar.sandbox.stripe.signing import SignedWebhook

SECRET = "whsec_first"


def verified(webhook: SignedWebhook, secret: str = SECRET, tolerance: int = 300) -> str:
    """The type of the event when the signature holds."""
    header = webhook.headers["Stripe-Signature"]
    return str(stripe.Webhook.construct_event(webhook.body, header, secret, tolerance).type)


def names(webhooks: list[SignedWebhook]) -> list[str]:
    return [webhook.event["data"]["object"]["name"] for webhook in webhooks]


@pytest.fixture
def sandbox() -> StripeSandbox:
    return StripeSandbox(webhook_secret=SECRET)


def create(sandbox: StripeSandbox, name: str) -> str:
    return str(send(sandbox, "POST", "/v1/customers", {"name": name}).json()["id"])


def test_it_signs_what_the_library_verifies(sandbox: StripeSandbox) -> None:
    id = create(sandbox, "Jenny")

    (webhook,) = sandbox.webhooks.pending()

    assert verified(webhook) == "customer.created"
    assert webhook.event["data"]["object"]["id"] == id
    assert webhook.headers["Content-Type"] == "application/json; charset=utf-8"
    assert sandbox.webhooks.pending() == []


def test_it_signs_with_every_secret_after_a_roll(sandbox: StripeSandbox) -> None:
    sandbox.webhooks.roll_secret("whsec_second")
    create(sandbox, "Jenny")

    (webhook,) = sandbox.webhooks.pending()

    assert verified(webhook, SECRET) == "customer.created"
    assert verified(webhook, "whsec_second") == "customer.created"
    assert webhook.headers["Stripe-Signature"].count("v1=") == 2


def test_it_stops_signing_with_the_old_secret_when_the_roll_is_over(sandbox: StripeSandbox) -> None:
    sandbox.webhooks.roll_secret("whsec_second", keep_old=False)
    create(sandbox, "Jenny")

    (webhook,) = sandbox.webhooks.pending()

    with pytest.raises(stripe.SignatureVerificationError):
        verified(webhook, SECRET)


def test_it_delivers_in_reverse(sandbox: StripeSandbox) -> None:
    sandbox.webhooks.hold()
    for name in ("a", "b", "c"):
        create(sandbox, name)

    held = sandbox.webhooks.pending()
    sandbox.webhooks.release("reversed")

    assert held == []
    assert names(sandbox.webhooks.pending()) == ["c", "b", "a"]


def test_it_duplicates_the_same_event(sandbox: StripeSandbox) -> None:
    sandbox.webhooks.script("duplicate", copies=3)
    create(sandbox, "a")

    webhooks = sandbox.webhooks.pending()

    assert len(webhooks) == 3
    assert len({webhook.event["id"] for webhook in webhooks}) == 1


def test_it_delays_until_the_clock_says_so() -> None:
    sandbox = StripeSandbox(webhook_secret=SECRET, clock=Clock(frozen_at=1_800_000_000))
    sandbox.webhooks.script("delay", seconds=60)
    create(sandbox, "late")
    create(sandbox, "soon")

    first = names(sandbox.webhooks.pending())
    sandbox.clock.advance(60)
    second = names(sandbox.webhooks.pending())

    assert (first, second) == (["soon"], ["late"])


def test_it_drops_and_the_event_stays_readable(sandbox: StripeSandbox) -> None:
    sandbox.webhooks.script("drop", type="customer.created")
    create(sandbox, "lost")

    assert sandbox.webhooks.pending() == []
    assert [event["type"] for event in send(sandbox, "GET", "/v1/events").json()["data"]] == ["customer.created"]


@pytest.mark.parametrize("effect", ["tamper", "old_timestamp", "wrong_secret"])
def test_it_sends_what_must_be_refused(sandbox: StripeSandbox, effect: str) -> None:
    sandbox.webhooks.script(effect)
    create(sandbox, "bad")
    create(sandbox, "good")

    bad, good = sandbox.webhooks.pending()

    with pytest.raises(stripe.SignatureVerificationError):
        verified(bad)
    assert verified(good) == "customer.created"


def test_it_sends_only_what_an_endpoint_enabled() -> None:
    sandbox = StripeSandbox(webhook_secret=[])
    endpoint = send(
        sandbox,
        "POST",
        "/v1/webhook_endpoints",
        {
            "url": "https://example.com/hook",
            "enabled_events[0]": "customer.deleted",
            "api_version": "2025-09-30.clover",
        },
    ).json()
    id = create(sandbox, "Jenny")
    send(sandbox, "DELETE", f"/v1/customers/{id}")

    (webhook,) = sandbox.webhooks.pending()

    assert verified(webhook, endpoint["secret"]) == "customer.deleted"
    assert webhook.event["api_version"] == "2025-09-30.clover"


def test_it_counts_pending_webhooks(sandbox: StripeSandbox) -> None:
    create(sandbox, "Jenny")
    before = sandbox.events[0]["pending_webhooks"]
    unsent = send(sandbox, "GET", "/v1/events", {"delivery_success": "false"}).json()["data"]

    sandbox.webhooks.pending()

    assert (before, len(unsent)) == (1, 1)
    assert sandbox.events[0]["pending_webhooks"] == 0


def test_it_tells_api_changes_from_changes_by_hand(sandbox: StripeSandbox) -> None:
    id = str(send(sandbox, "POST", "/v1/customers", {"name": "a"}, key="our-key").json()["id"])
    sandbox.customer_edit(id, name="b", metadata={"plan": "pro"}, phone=None)
    sandbox.customer_remove(id)

    requests = [webhook.event["request"] for webhook in sandbox.webhooks.pending()]

    assert requests[0]["idempotency_key"] == "our-key"
    assert requests[0]["id"].startswith("req_")
    assert requests[1:] == [{"id": None, "idempotency_key": None}] * 2


def test_it_keeps_events_for_thirty_days() -> None:
    sandbox = StripeSandbox(clock=Clock(frozen_at=1_800_000_000))
    create(sandbox, "Jenny")
    event_id = sandbox.events[0]["id"]

    sandbox.clock.advance(30 * 24 * 3600)

    assert send(sandbox, "GET", "/v1/events").json()["data"] == []
    assert send(sandbox, "GET", f"/v1/events/{event_id}").status == 404


class Receiver:
    """An HTTP endpoint that answers with the given statuses in turn, then 200, and keeps what it got."""

    def __init__(self, statuses: list[int]) -> None:
        self.statuses = list(statuses)
        self.got: list[SignedWebhook] = []
        self.arrived = threading.Semaphore(0)
        self.on_post: Callable[[], None] = lambda: None
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.got.append(SignedWebhook(dict(self.headers.items()), body))
                receiver.on_post()
                self.send_response(receiver.statuses.pop(0) if receiver.statuses else 200)
                self.send_header("Content-Length", "0")
                self.end_headers()
                receiver.arrived.release()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/webhooks/stripe"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    def stop(self) -> None:
        self.server.shutdown()
        self.thread.join(60)
        self.server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    running = Receiver([500, 302])
    yield running
    running.stop()


def test_it_posts_and_tries_again_until_a_2xx(receiver: Receiver) -> None:
    with StripeSandboxServer(webhook_url=receiver.url, webhook_secret=SECRET, retry_after=(0.01, 0.01, 0.01)) as server:
        create(server.sandbox, "Jenny")

        arrived = [receiver.arrived.acquire(timeout=60) for _ in range(3)]

        assert arrived == [True] * 3
        assert [verified(webhook) for webhook in receiver.got] == ["customer.created"] * 3
        deadline = threading.Event()
        while server.sandbox.webhooks.waiting() and not deadline.wait(0.01):
            pass
        assert server.sandbox.events[0]["pending_webhooks"] == 0


def test_it_posts_to_endpoints_made_through_the_api(receiver: Receiver) -> None:
    with StripeSandboxServer(webhook_secret=[], retry_after=(0.01,) * 3) as server:
        params = {"url": receiver.url, "enabled_events[]": "customer.deleted"}
        endpoint = send(server.sandbox, "POST", "/v1/webhook_endpoints", params).json()
        id = create(server.sandbox, "Jenny")
        send(server.sandbox, "DELETE", f"/v1/customers/{id}")

        arrived = receiver.arrived.acquire(timeout=60)

    assert arrived
    assert verified(receiver.got[0], endpoint["secret"]) == "customer.deleted"


def test_it_posts_nothing_more_of_a_batch_after_a_reset() -> None:
    receiver = Receiver([])
    sandbox = StripeSandbox(webhook_url=receiver.url, webhook_secret=SECRET)
    create(sandbox, "Jenny")
    create(sandbox, "Jane")
    receiver.on_post = sandbox.reset

    sandbox.webhooks.deliver_due()
    receiver.stop()

    assert len(receiver.got) == 1
    assert sandbox.webhooks.posting() == 0


def test_it_gives_up_after_the_last_retry() -> None:
    receiver = Receiver([500] * 10)
    clock = Clock(frozen_at=1_800_000_000)
    sandbox = StripeSandbox(webhook_url=receiver.url, webhook_secret=SECRET, retry_after=(5, 60), clock=clock)
    create(sandbox, "Jenny")

    posted = [sandbox.webhooks.deliver_due(), sandbox.webhooks.deliver_due()]
    clock.advance(5)
    posted.append(sandbox.webhooks.deliver_due())
    clock.advance(60)
    posted.append(sandbox.webhooks.deliver_due())
    clock.advance(3600)
    posted.append(sandbox.webhooks.deliver_due())
    receiver.stop()

    assert posted == [1, 0, 1, 1, 0]
    assert sandbox.events[0]["pending_webhooks"] == 1
