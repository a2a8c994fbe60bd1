from __future__ import annotations

import http.client
import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.sandbox.stripe.calling import client_of, send
from zenskar.sandbox.stripe.core import StripeSandbox
from zenskar.sandbox.stripe.errors import LiveKeyRefused
from zenskar.sandbox.stripe.server import ExposureRefused, StripeSandboxServer

EVERYWHERE = "0.0.0.0"  # noqa: S104 - refused, or meant as in a container


@pytest.fixture
def server() -> Iterator[StripeSandboxServer]:
    with StripeSandboxServer() as running:
        yield running


@pytest.fixture
def connection(server: StripeSandboxServer) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    yield connection
    connection.close()


def ask(
    connection: http.client.HTTPConnection, method: str, path: str, body: str | bytes = "", **headers: str
) -> tuple[int, str, http.client.HTTPResponse]:
    connection.request(method, path, body=body, headers={k.replace("_", "-"): v for k, v in headers.items()})
    response = connection.getresponse()
    return response.status, response.read().decode(), response


def control(connection: http.client.HTTPConnection, method: str, path: str, document: Any = None) -> Any:
    body = json.dumps(document) if document is not None else ""
    status, text, _ = ask(connection, method, f"/_sandbox/{path}", body, Authorization="Bearer sk_test_sandbox")
    assert status == 200, text
    return json.loads(text)


def token_of(page: str) -> str:
    match = re.search(r'name="token" value="([^"]+)"', page)
    assert match is not None
    return match[1]


def test_it_keeps_the_connection(connection: http.client.HTTPConnection) -> None:
    ask(connection, "GET", "/v1/customers", Authorization="Bearer sk_test_sandbox")
    first = connection.sock
    status, _, _ = ask(connection, "GET", "/v1/customers", Authorization="Bearer sk_test_sandbox")

    assert status == 200
    assert connection.sock is first


def test_it_takes_basic_authentication(connection: http.client.HTTPConnection) -> None:
    status, _, _ = ask(connection, "GET", "/v1/customers", Authorization="Basic c2tfdGVzdF9zYW5kYm94Og==")

    assert status == 200


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer sk_test_other", "Basic !!!", "Digest x"])
def test_it_refuses_strangers(connection: http.client.HTTPConnection, header: str) -> None:
    status, text, response = ask(connection, "GET", "/v1/customers", Authorization=header)

    assert status == 401
    assert json.loads(text)["error"]["type"] == "invalid_request_error"
    assert response.headers["WWW-Authenticate"] == 'Bearer realm="Stripe"'
    assert ask(connection, "GET", "/_sandbox/state", Authorization=header)[0] == 401


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b'{"name": "x"}', "application/json"),
        (b"name=%ff", "application/x-www-form-urlencoded"),
        (b"name=\xff", "application/x-www-form-urlencoded"),
        (b"name[=x", "application/x-www-form-urlencoded"),
        (b"metadata" + b"[a]" * 500 + b"=x", "application/x-www-form-urlencoded"),
        (b"metadata[a][b]=x", "application/x-www-form-urlencoded"),
        (b"metadata=x", "application/x-www-form-urlencoded"),
        (b"address=x", "application/x-www-form-urlencoded"),
        (b"name[a]=x", "application/x-www-form-urlencoded"),
        (b"balance=ten", "application/x-www-form-urlencoded"),
        (b"preferred_locales=fr", "application/x-www-form-urlencoded"),
        (b"name=a%00b", "application/x-www-form-urlencoded"),
        (b"tax_exempt=maybe", "application/x-www-form-urlencoded"),
        (b"source=tok_visa", "application/x-www-form-urlencoded"),
    ],
)
def test_it_answers_bad_bodies_with_400(connection: http.client.HTTPConnection, body: bytes, kind: str) -> None:
    status, text, _ = ask(
        connection, "POST", "/v1/customers", body, Authorization="Bearer sk_test_sandbox", Content_Type=kind
    )

    assert status == 400
    assert json.loads(text)["error"]["type"] == "invalid_request_error"


def test_it_refuses_bodies_that_are_too_large(connection: http.client.HTTPConnection) -> None:
    connection.putrequest("POST", "/v1/customers")
    connection.putheader("Content-Length", "2000000")
    connection.endheaders()

    assert connection.getresponse().status == 413


def test_it_refuses_live_keys() -> None:
    with pytest.raises(LiveKeyRefused):
        StripeSandbox(api_key="sk_live_x")
    with pytest.raises(LiveKeyRefused):
        StripeSandbox(restricted_keys={"rk_live_x": {"customer_read"}})


def test_it_listens_on_the_loopback_unless_exposed() -> None:
    with pytest.raises(ExposureRefused):
        StripeSandboxServer(host=EVERYWHERE)

    server = StripeSandboxServer(host=EVERYWHERE, exposed=True)
    server.stop()

    assert server.url.startswith("http://127.0.0.1:")


def test_it_gives_restricted_keys_what_they_may() -> None:
    sandbox = StripeSandbox(restricted_keys={"rk_test_reader": {"customer_read"}})

    def status(method: str, path: str) -> int:
        return sandbox.handle(method, path, {"Authorization": "Bearer rk_test_reader"}).status

    assert status("GET", "/v1/customers") == 200
    assert status("POST", "/v1/customers") == 403
    assert status("GET", "/v1/events") == 403


def test_it_is_driven_from_another_process(server: StripeSandboxServer, connection: http.client.HTTPConnection) -> None:
    customer = control(connection, "POST", "customers", {"name": "By hand", "metadata": {"a": "1"}})
    control(connection, "POST", f"customers/{customer['id']}", {"name": "Changed", "phone": "1"})
    control(connection, "POST", "faults", {"route": "GET /v1/customers", "status": 503})
    broken = ask(connection, "GET", "/v1/customers", Authorization="Bearer sk_test_sandbox")[0]
    now = server.sandbox.clock.now()
    later = control(connection, "POST", "clock", {"advance": 3600})["now"]
    control(connection, "POST", "webhooks/hold", {})
    control(connection, "POST", "webhooks/release", {"order": "reversed"})
    pending = control(connection, "POST", "webhooks/pending", {})["data"]
    control(connection, "DELETE", f"customers/{customer['id']}")
    requests = control(connection, "GET", "requests")["data"]
    state = control(connection, "GET", "state")
    control(connection, "POST", "reset", {})

    assert broken == 503
    assert later >= now + 3600
    assert [json.loads(each["body"])["type"] for each in pending] == ["customer.updated", "customer.created"]
    assert [(line["path"], line["status"], line["fault"]) for line in requests] == [
        ("/v1/customers", 503, "before:status")
    ]
    assert (state["customers"], state["events"]) == (0, 3)
    assert server.sandbox.events == []


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "faults", '{"effect": "explode"}', 400),
        ("POST", "faults", '{"unknown": 1}', 400),
        ("POST", "faults", "[", 400),
        ("POST", "faults", "[]", 400),
        ("POST", "customers/cus_nobody", '{"name": "x"}', 404),
        ("POST", "webhooks/resend", '{"event": "evt_none"}', 404),
        ("POST", "clock", '{"advance": -1}', 400),
        ("GET", "nothing", "", 404),
    ],
)
def test_it_answers_bad_control_requests(
    connection: http.client.HTTPConnection, method: str, path: str, body: str, status: int
) -> None:
    answer, text, _ = ask(connection, method, f"/_sandbox/{path}", body, Authorization="Bearer sk_test_sandbox")

    assert answer == status
    assert "error" in json.loads(text)


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        (
            "webhooks/script",
            "{}",
            'The argument "effect" is missing. It takes effect, type, times, seconds, copies.',
        ),
        (
            "webhooks/script",
            '{"effect": "drop", "event": "customer.updated"}',
            'There is no argument "event". It takes effect, type, times, seconds, copies.',
        ),
        ("webhooks/script", '{"effect": "delay", "seconds": "ten"}', 'The argument "seconds" is a number.'),
        ("webhooks/release", '{"self": "x"}', 'There is no argument "self". It takes order.'),
        ("webhooks/resend", "{}", 'The argument "event" is missing. It takes event.'),
        ("faults", '{"status": true}', 'The argument "status" is a whole number.'),
        ("customers/fill", "{}", 'The argument "count" is missing. It takes count, days.'),
    ],
)
def test_it_says_in_one_line_which_argument_is_wrong(
    connection: http.client.HTTPConnection, path: str, body: str, message: str
) -> None:
    answer, text, _ = ask(connection, "POST", f"/_sandbox/{path}", body, Authorization="Bearer sk_test_sandbox")

    assert (answer, json.loads(text)) == (400, {"error": {"message": message}})


def test_it_changes_customers_on_its_page(server: StripeSandboxServer, connection: http.client.HTTPConnection) -> None:
    id = send(server.sandbox, "POST", "/v1/customers", {"name": "<script>"}).json()["id"]
    _, page, response = ask(connection, "GET", "/")
    form = urlencode({"token": token_of(page), "id": id, "name": "Jane", "email": "jane@example.com", "phone": ""})

    status, _, _ = ask(connection, "POST", "/edit", form, Origin=f"http://127.0.0.1:{server.port}")

    assert status == 303
    assert "<script>" not in page
    assert "unsafe" not in response.headers["Content-Security-Policy"]
    assert (server.sandbox.customers[id]["name"], server.sandbox.customers[id]["phone"]) == ("Jane", None)
    assert server.sandbox.events[-1]["request"] == {"id": None, "idempotency_key": None}


def test_it_deletes_and_creates_customers_on_its_page(
    server: StripeSandboxServer, connection: http.client.HTTPConnection
) -> None:
    id = send(server.sandbox, "POST", "/v1/customers", {"name": "x"}).json()["id"]
    token = token_of(ask(connection, "GET", "/")[1])

    deleted, _, _ = ask(connection, "POST", "/delete", urlencode({"token": token, "id": id}))
    created, _, _ = ask(connection, "POST", "/add", urlencode({"token": token, "name": "New"}))
    wrong, page, _ = ask(connection, "POST", "/add", urlencode({"token": token, "email": "nobody"}))

    assert (deleted, created, wrong) == (303, 303, 400)
    assert "Invalid email address" in page
    assert [customer["name"] for customer in server.sandbox.customers.values()] == ["New"]


def test_it_refuses_forms_of_other_sites(server: StripeSandboxServer, connection: http.client.HTTPConnection) -> None:
    token = token_of(ask(connection, "GET", "/")[1])

    foreign, _, _ = ask(connection, "POST", "/add", urlencode({"token": token}), Origin="https://evil.example")
    blind, _, _ = ask(connection, "POST", "/add", urlencode({"name": "x"}))
    rebound, _, _ = ask(connection, "GET", "/", Host="evil.example")

    assert (foreign, blind, rebound) == (403, 403, 403)
    assert server.sandbox.customers == {}


def test_it_asks_for_the_key_on_an_exposed_page() -> None:
    with StripeSandboxServer(host=EVERYWHERE, exposed=True) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)

        closed = ask(connection, "GET", "/")[0]
        opened = ask(connection, "GET", "/", Authorization="Basic c2tfdGVzdF9zYW5kYm94Og==")[0]
        connection.close()

    assert (closed, opened) == (401, 200)


def test_it_serves_the_library_in_process() -> None:
    sandbox = StripeSandbox()
    client = client_of(sandbox)

    customer = client.v1.customers.create({"name": "Jenny", "metadata": {"a": "é&="}})

    assert client.v1.customers.retrieve(customer.id).metadata.to_dict() == {"a": "é&="}
    assert [line.wrote for line in sandbox.request_log] == [True, False]


def test_it_logs_who_wrote() -> None:
    sandbox = StripeSandbox()
    id = send(sandbox, "POST", "/v1/customers", {"name": "a"}, key="k").json()["id"]
    send(sandbox, "POST", "/v1/customers", {"name": "a"}, key="k")
    send(sandbox, "POST", f"/v1/customers/{id}", {"name": "a"})
    send(sandbox, "POST", f"/v1/customers/{id}", {"name": "b"})
    send(sandbox, "POST", f"/v1/customers/{id}", {"nickname": "b"})

    lines = [(line.status, line.wrote, line.replayed, line.error_code) for line in sandbox.request_log]

    assert lines == [
        (200, True, False, None),
        (200, False, True, None),
        (200, False, False, None),
        (200, True, False, None),
        (400, False, False, "parameter_unknown"),
    ]
    assert len(sandbox.request_log.writes()) == 2


def test_it_repeats_ids_with_a_seed() -> None:
    first = send(StripeSandbox(seed=1), "POST", "/v1/customers", {}).json()["id"]
    second = send(StripeSandbox(seed=1), "POST", "/v1/customers", {}).json()["id"]

    assert first == second


@pytest.mark.parametrize(("merges", "city"), [(False, None), (True, "Paris")])
def test_it_merges_or_replaces_addresses_as_told(merges: bool, city: str | None) -> None:
    sandbox = StripeSandbox(address_merges=merges)
    id = send(sandbox, "POST", "/v1/customers", {"address[city]": "Paris"}).json()["id"]

    updated = send(sandbox, "POST", f"/v1/customers/{id}", {"address[line1]": "1 Main St"}).json()

    assert (updated["address"]["city"], updated["address"]["line1"]) == (city, "1 Main St")
