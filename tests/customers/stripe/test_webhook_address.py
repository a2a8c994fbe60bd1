"""``/webhooks/stripe``: what is stored, what is refused, and that nothing is a 500."""

from __future__ import annotations

import json
import time
from contextlib import closing
from http.client import HTTPConnection
from typing import Any

import pytest
import stripe
import structlog
from pytest_django import Settings
from pytest_django.live_server_helper import LiveServer

from customers.models import Customer, SyncState, Webhook
from customers.services import customer_create
from customers.sync.webhooks import webhooks_process_once
from tests.customers.stripe.conftest import SECRET, StripeSide
from zenskar.sandbox.stripe.core import StripeSandbox

pytestmark = [pytest.mark.django_db, pytest.mark.feature("G2", "A16")]


def signed(body: bytes, *, secret: str = SECRET, age: int = 0) -> str:
    timestamp = int(time.time()) - age
    signature = stripe.WebhookSignature._compute_signature(f"{timestamp}.{body.decode('utf-8', 'ignore')}", secret)
    return f"t={timestamp},v1={signature}"


def event(**changes: Any) -> bytes:
    values = {
        "id": "evt_1",
        "object": "event",
        "type": "customer.updated",
        "livemode": False,
        "data": {"object": {"id": "cus_1", "object": "customer", "name": "Ada", "metadata": {}}},
        "request": {"id": None, "idempotency_key": None},
        **changes,
    }
    return json.dumps(values).encode()


def refused(response: Any, *, status: int = 400, code: str = "signature_invalid") -> bool:
    problem = response.json()
    assert response["Content-Type"] == "application/problem+json"
    assert (response.status_code, problem["status"], problem["code"]) == (status, status, code)
    assert problem["correlation_id"]
    return not Webhook.objects.exists()


@pytest.mark.parametrize(
    "path", ["/webhooks/stripe", "/webhooks/stripe/", "/api/v1/webhooks/stripe", "/api/v1/webhooks/stripe/"]
)
def test_it_stores_a_signed_event_at_each_of_its_addresses(stripe_side: StripeSide, path: str) -> None:
    body = event()

    response = stripe_side.post(body, path, **{"Stripe-Signature": signed(body)})

    webhook = Webhook.objects.get()
    assert response.status_code == 200
    assert (webhook.event_id, webhook.type, webhook.remote_id) == ("evt_1", "customer.updated", "cus_1")
    assert (webhook.outcome, webhook.processed_at) == ("pending", None)
    assert webhook.payload == json.loads(body)


def test_it_answers_2xx_to_a_duplicate_and_stores_it_once(stripe_side: StripeSide) -> None:
    body = event()

    answers = [stripe_side.post(body, **{"Stripe-Signature": signed(body)}).status_code for _ in range(3)]

    assert answers == [200, 200, 200]
    assert Webhook.objects.count() == 1


@pytest.mark.parametrize(
    "header",
    [
        "",
        "nonsense",
        "t=,v1=",
        "t=abc,v1=def",
        "v1=00",
        "t=1,v0=00",
        "t=99999999999999999999999999,v1=00",
        "t=1,v1=\u00e9",
    ],
)
def test_it_refuses_a_header_that_is_no_signature(stripe_side: StripeSide, header: str) -> None:
    response = stripe_side.post(event(), **{"Stripe-Signature": header})

    assert refused(response)


def test_it_refuses_a_missing_header(stripe_side: StripeSide) -> None:
    assert refused(stripe_side.post(event()))


def test_it_refuses_another_secret_an_old_time_and_a_changed_body(stripe_side: StripeSide) -> None:
    body = event()
    attempts = [
        (body, signed(body, secret="whsec_of_somebody_else")),
        (body, signed(body, age=301)),
        (body.replace(b"Ada", b"Eve"), signed(body)),
    ]

    responses = [stripe_side.post(sent, **{"Stripe-Signature": header}) for sent, header in attempts]

    assert all(refused(response) for response in responses)


@pytest.mark.parametrize("secrets", [[SECRET, "whsec_new"], ["whsec_new", SECRET]])
def test_it_takes_either_secret_while_one_is_rotated(
    stripe_side: StripeSide, settings: Settings, secrets: list[str]
) -> None:
    settings.STRIPE_WEBHOOK_SECRETS = secrets
    old, new = event(id="evt_old"), event(id="evt_new")

    answers = [
        stripe_side.post(old, **{"Stripe-Signature": signed(old)}).status_code,
        stripe_side.post(new, **{"Stripe-Signature": signed(new, secret="whsec_new")}).status_code,
    ]

    assert answers == [200, 200]
    assert Webhook.objects.count() == 2


@pytest.mark.parametrize("secrets", [[], [""], [" "]])
def test_it_trusts_nobody_without_a_secret(stripe_side: StripeSide, settings: Settings, secrets: list[str]) -> None:
    settings.STRIPE_WEBHOOK_SECRETS = secrets
    body = event()

    response = stripe_side.post(body, **{"Stripe-Signature": signed(body, secret=secrets[0] if secrets else "x")})

    assert refused(response)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "malformed_json"),
        (b"not json", "malformed_json"),
        (b"[" * 100_000, "malformed_json"),
        (b'{"object": NaN}', "malformed_json"),
        (b'{"object": "event", "id": "evt_1", "type": "\\u0000"}', "malformed_json"),
        (b'{"object": "event", "id": "\\ud800", "type": "x"}', "malformed_json"),
        (b"[]", "not_an_event"),
        (b"null", "not_an_event"),
        (b'{"object": "event"}', "not_an_event"),
        (b'{"object": "event", "id": 7, "type": "x"}', "not_an_event"),
        (b'{"object": "event", "id": "' + b"e" * 300 + b'", "type": "x"}', "not_an_event"),
        (b'{"object": "v2.core.event", "id": "evt_1", "type": "x"}', "not_an_event"),
        (event(livemode="false"), "not_an_event"),
        (event(livemode=None), "not_an_event"),
        (event(account=7), "not_an_event"),
        (event(account={"id": "acct_1"}), "not_an_event"),
        (event(type="", id="evt_1"), "not_an_event"),
        (event(id=""), "not_an_event"),
        (b'{"object": "event", "id": "evt_1", "type": "x", "livemode": false, "n": 1e999}', "malformed_json"),
        (
            b'{"object": "event", "id": "evt_1", "type": "x", "livemode": false, "n": ' + b"9" * 5000 + b"}",
            "malformed_json",
        ),
        (b"\xef\xbb\xbf" + event(), "malformed_json"),
        (event() + b" {}", "malformed_json"),
    ],
)
def test_it_refuses_what_is_signed_but_no_event(stripe_side: StripeSide, body: bytes, code: str) -> None:
    response = stripe_side.post(body, **{"Stripe-Signature": signed(body)})

    assert refused(response, code=code)


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        (b"[]", {""}),
        (b"7", {""}),
        (b"{}", {"/object", "/id", "/type", "/livemode"}),
        (event(id=7, type=["customer.updated"]), {"/id", "/type"}),
        (event(livemode=0), {"/livemode"}),
        (event(account=7), {"/account"}),
        (event(account=0), {"/account"}),
        (event(account=False), {"/account"}),
        (event(account=[]), {"/account"}),
        (event(account={}), {"/account"}),
        (event(created=10**30), {"/created"}),
        (event(created=2**64), {"/created"}),
        (event(data={"object": {"a/b": [0, -(2**63) - 1, 10**30]}}), {"/data/object/a~1b/1"}),
    ],
)
def test_it_tells_what_is_wrong_with_a_body_that_is_no_event(
    stripe_side: StripeSide, body: bytes, pointers: set[str]
) -> None:
    with structlog.testing.capture_logs() as logs:
        response = stripe_side.post(body, **{"Stripe-Signature": signed(body)})

    problem = response.json()
    assert {error["pointer"] for error in problem["errors"]} == pointers
    assert all(error["detail"] in problem["detail"] for error in problem["errors"])
    assert [(one["event"], one["code"]) for one in logs if one["log_level"] == "warning"] == [
        ("webhook_unreadable", "not_an_event")
    ]


@pytest.mark.parametrize("body", [b"", b"not json", b"[" * 100_000, b"[]", b'{"object": "event"}'])
def test_it_reads_nothing_that_is_not_signed(stripe_side: StripeSide, body: bytes) -> None:
    with structlog.testing.capture_logs() as logs:
        response = stripe_side.post(body, **{"Stripe-Signature": signed(body, secret="whsec_of_somebody_else")})

    assert refused(response)
    assert response.json()["errors"] == []
    assert [one["event"] for one in logs if one["log_level"] == "warning"] == ["webhook_refused"]


def test_it_refuses_invalid_utf8(stripe_side: StripeSide) -> None:
    body = b'{"object": "event", "id": "\xff"}'

    response = stripe_side.post(body, **{"Stripe-Signature": signed(body)})

    assert refused(response)


def test_it_refuses_a_body_over_the_limit(stripe_side: StripeSide, settings: Settings) -> None:
    settings.STRIPE_WEBHOOK_MAX_BYTES = 10_000
    body = event(padding="x" * 10_000)

    response = stripe_side.post(body, **{"Stripe-Signature": signed(body)})

    assert refused(response, status=413, code="body_too_large")


@pytest.mark.parametrize("method", ["get", "put", "delete", "options", "patch"])
def test_it_takes_posts_alone(stripe_side: StripeSide, method: str) -> None:
    response = getattr(stripe_side.client, method)("/webhooks/stripe")

    assert refused(response, status=405, code="method_not_allowed")
    assert response["Allow"] == "POST"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"type": "invoice.paid"}, "of a type that means nothing here"),
        ({"account": "acct_other"}, "of another account"),
        ({"livemode": True}, "live, but the key in use is a test key"),
        ({"data": {"object": {"object": "customer"}}}, "names no customer"),
        ({"data": None}, "names no customer"),
        ({"data": []}, "names no customer"),
        ({"data": {"object": ["cus_1"]}}, "names no customer"),
        ({"data": {"object": {"id": {"id": "cus_1"}, "object": "customer"}}}, "names no customer"),
        ({"type": "customer.tax_id.created"}, "of a type that means nothing here"),
        ({"type": "x" * 128}, "of a type that means nothing here"),
        ({"account": "a" * 300}, "of another account"),
    ],
)
def test_it_stores_and_ignores_what_is_not_for_it(
    stripe_side: StripeSide, changes: dict[str, Any], reason: str
) -> None:
    body = event(**changes)

    response = stripe_side.post(body, **{"Stripe-Signature": signed(body)})
    worked = webhooks_process_once()

    webhook = Webhook.objects.get()
    assert (response.status_code, worked) == (200, 0)
    assert (webhook.outcome, webhook.reason) == ("ignored", reason)
    assert not SyncState.objects.exists()
    assert not Customer.objects.exists()


@pytest.mark.parametrize("effect", ["tamper", "old_timestamp", "wrong_secret", "future_timestamp"])
def test_it_meets_the_sandboxs_bad_deliveries(stripe_side: StripeSide, sandbox: StripeSandbox, effect: str) -> None:
    sandbox.webhooks.script(effect)
    sandbox.customer_add(name="Grace")

    (webhook,) = sandbox.webhooks.pending()
    response = stripe_side.post(webhook.body, **webhook.headers)

    # A time in the future is signed too, and so no danger.
    assert response.status_code == (200 if effect == "future_timestamp" else 400)
    assert Webhook.objects.count() == (1 if effect == "future_timestamp" else 0)


@pytest.mark.parametrize(
    "fields",
    [
        {"id": "cus_1", "object": "customer"},
        {"id": "cus_1", "object": "customer", "name": 7, "email": ["x"], "address": "nowhere", "metadata": "none"},
        {"id": "cus_1", "object": "customer", "metadata": {"zenskar_id": {"a": 1}, "": None, "n": 5}},
        {"id": "cus_1", "object": "account", "metadata": {"zenskar_id": "0190"}},
        {"id": "cus_1", "object": "customer", "name": "n" * 100_000},
    ],
)
def test_it_looks_at_a_customer_whatever_the_event_says_of_it(stripe_side: StripeSide, fields: dict[str, Any]) -> None:
    body = event(data={"object": fields}, request="req_1")

    response = stripe_side.post(body, **{"Stripe-Signature": signed(body)})
    worked = webhooks_process_once()

    assert (response.status_code, worked) == (200, 1)
    assert Webhook.objects.get().outcome == "poked"
    assert SyncState.objects.get().remote_id == "cus_1"


def test_it_keeps_the_first_of_two_events_with_one_id(stripe_side: StripeSide) -> None:
    first, second = event(), event(type="customer.deleted")

    answers = [stripe_side.post(body, **{"Stripe-Signature": signed(body)}).status_code for body in (first, second)]

    assert answers == [200, 200]
    assert Webhook.objects.get().type == "customer.updated"


def test_it_imports_a_copy_that_carries_the_id_of_a_customer_of_ours_as_another_customer(
    stripe_side: StripeSide,
) -> None:
    customer = customer_create(name="Ada", email="ada@example.com")
    stripe_side.rest()
    linked = stripe_side.state(customer).remote_id

    copy = stripe_side.sandbox.customer_add(name="Eve", metadata={"zenskar_id": str(customer.pk)})
    stripe_side.rest()

    customer.refresh_from_db()
    imported = SyncState.objects.get(remote_id=copy["id"]).customer
    assert (customer.name, stripe_side.state(customer).remote_id) == ("Ada", linked)
    assert imported is not None
    assert (imported.name, imported.pk != customer.pk) == ("Eve", True)


@pytest.mark.parametrize("kind", ["customer.updated", "customer.deleted"])
def test_it_makes_no_customer_of_one_that_stripe_does_not_know(stripe_side: StripeSide, kind: str) -> None:
    body = event(type=kind, data={"object": {"id": "cus_nobody", "object": "customer", "name": "Ghost"}})

    stripe_side.post(body, **{"Stripe-Signature": signed(body)})
    stripe_side.rest()

    assert not Customer.objects.exists()
    assert Webhook.objects.get().processed_at is not None


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"Content-Encoding": "gzip"}, 415),
        ({"Content-Type": "text/plain"}, 200),
        ({"Transfer-Encoding": "chunked"}, 411),
        ({"Content-Length": "5"}, 400),
    ],
)
def test_it_goes_by_the_bytes_and_their_signature_alone(
    live_server: LiveServer, sandbox: StripeSandbox, headers: dict[str, str], expected: int
) -> None:
    """Over a socket, as nothing else shows what a server makes of such headers."""
    body = event()
    request = {"Content-Type": "application/json", "Content-Length": str(len(body)), "Stripe-Signature": signed(body)}
    request |= headers
    if "Transfer-Encoding" in headers:
        del request["Content-Length"]
        body = f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n"
    with closing(HTTPConnection(live_server.url.removeprefix("http://"), timeout=60)) as connection:
        connection.putrequest("POST", "/webhooks/stripe")
        for name, value in request.items():
            connection.putheader(name, value)
        connection.endheaders(body)
        status = connection.getresponse().status

    assert status == expected
    assert Webhook.objects.count() == (1 if expected == 200 else 0)
