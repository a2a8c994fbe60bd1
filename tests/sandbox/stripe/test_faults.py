from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest
import stripe

from tests.sandbox.stripe.calling import client_of, send
from zenskar.sandbox.stripe.clock import Clock
from zenskar.sandbox.stripe.core import StripeSandbox
from zenskar.sandbox.stripe.server import StripeSandboxServer

CREATE = "POST /v1/customers"


@pytest.fixture
def server() -> Iterator[StripeSandboxServer]:
    with StripeSandboxServer() as running:
        yield running


def client_over_http(server: StripeSandboxServer, *, retries: int = 0, timeout: float = 5.0) -> stripe.StripeClient:
    return stripe.StripeClient(
        server.sandbox.api_key,
        base_addresses={"api": server.url},
        max_network_retries=retries,
        http_client=stripe.RequestsClient(timeout=timeout),
    )


def test_it_resets_the_connection_before_the_write(server: StripeSandboxServer) -> None:
    server.sandbox.faults.add(route=CREATE, effect="reset")
    client = client_over_http(server)

    with pytest.raises(stripe.APIConnectionError):
        client.v1.customers.create({"name": "x"})

    assert server.sandbox.customers == {}


def test_it_resets_the_socket_for_real(server: StripeSandboxServer) -> None:
    server.sandbox.faults.add(effect="reset")
    request = f"GET /v1/customers HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.sandbox.api_key}\r\n\r\n"

    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(request.encode())
        with pytest.raises(ConnectionResetError):
            connection.recv(1)


def test_it_loses_the_answer_after_the_write(server: StripeSandboxServer) -> None:
    server.sandbox.faults.add(route=CREATE, effect="reset", phase="after")
    client = client_over_http(server)

    with pytest.raises(stripe.APIConnectionError):
        client.v1.customers.create({"name": "x"}, {"idempotency_key": "k"})
    again = client.v1.customers.create({"name": "x"}, {"idempotency_key": "k"})

    assert list(server.sandbox.customers) == [again.id]
    assert again.last_response.headers["idempotent-replayed"] == "true"


def test_it_makes_one_customer_when_the_library_retries_a_lost_answer(server: StripeSandboxServer) -> None:
    server.sandbox.faults.add(route=CREATE, effect="reset", phase="after")
    client = client_over_http(server, retries=2)

    customer = client.v1.customers.create({"name": "x"})

    assert list(server.sandbox.customers) == [customer.id]
    assert [line.replayed for line in server.sandbox.request_log.matching(CREATE)] == [False, True]


@pytest.mark.parametrize(("phase", "written"), [("before", 0), ("after", 1)])
def test_it_hangs_until_the_caller_gives_up(server: StripeSandboxServer, phase: str, written: int) -> None:
    server.sandbox.faults.add(route=CREATE, effect="hang", phase=phase, seconds=3600)
    client = client_over_http(server, timeout=0.2)

    with pytest.raises(stripe.APIConnectionError):
        client.v1.customers.create({"name": "x"})

    assert len(server.sandbox.customers) == written


def test_it_commits_late_after_the_caller_gave_up() -> None:
    sandbox = StripeSandbox(clock=Clock(frozen_at=1_800_000_000))
    sandbox.faults.add(route=CREATE, effect="late_commit", seconds=7)
    client = client_of(sandbox)

    with pytest.raises(stripe.APIConnectionError):
        client.v1.customers.create({"name": "x"}, {"idempotency_key": "k"})
    at_first = dict(sandbox.customers)
    meanwhile = send(sandbox, "POST", "/v1/customers", {"name": "x"}, key="k")
    sandbox.clock.advance(7)
    afterwards = client.v1.customers.create({"name": "x"}, {"idempotency_key": "k"})

    assert at_first == {}
    assert meanwhile.status == 409
    assert list(sandbox.customers) == [afterwards.id]


def test_it_commits_late_by_itself_over_http(server: StripeSandboxServer) -> None:
    server.sandbox.faults.add(route=CREATE, effect="late_commit", seconds=0.3)
    client = client_over_http(server, timeout=0.1)

    with pytest.raises(stripe.APIConnectionError):
        client.v1.customers.create({"name": "x"})

    deadline = time.monotonic() + 60
    while not server.sandbox.customers and time.monotonic() < deadline:
        time.sleep(0.02)
    assert len(server.sandbox.customers) == 1


def test_it_writes_and_answers_500_which_the_key_keeps() -> None:
    sandbox = StripeSandbox()
    sandbox.faults.add(route=CREATE, status=500, phase="after")

    first = send(sandbox, "POST", "/v1/customers", {"name": "x"}, key="k")
    again = send(sandbox, "POST", "/v1/customers", {"name": "x"}, key="k")

    assert (first.status, again.status) == (500, 500)
    assert len(sandbox.customers) == 1


def test_it_writes_and_answers_503_while_the_key_keeps_the_success() -> None:
    sandbox = StripeSandbox()
    sandbox.faults.add(route=CREATE, status=503, phase="after")

    first = send(sandbox, "POST", "/v1/customers", {"name": "x"}, key="k")
    again = send(sandbox, "POST", "/v1/customers", {"name": "x"}, key="k")

    assert (first.status, again.status) == (503, 200)
    assert list(sandbox.customers) == [again.json()["id"]]


def test_it_answers_lock_timeout_as_something_to_retry() -> None:
    sandbox = StripeSandbox()
    sandbox.faults.add(route=CREATE, effect="lock_timeout")

    once = send(sandbox, "POST", "/v1/customers", {})
    sandbox.faults.add(route=CREATE, effect="lock_timeout")
    customer = client_of(sandbox, retries=1).v1.customers.create({"name": "x"})

    assert (once.status, once.json()["error"]["code"]) == (429, "lock_timeout")
    assert once.headers["Stripe-Should-Retry"] == "true"
    assert list(sandbox.customers) == [customer.id]


def test_it_strikes_as_often_as_told_and_only_the_route() -> None:
    sandbox = StripeSandbox()
    sandbox.faults.add(route="POST /v1/customers/*", status=503, times=2, skip=1)
    id = send(sandbox, "POST", "/v1/customers", {"name": "x"}).json()["id"]

    statuses = [send(sandbox, "POST", f"/v1/customers/{id}", {"name": str(n)}).status for n in range(5)]

    assert statuses == [200, 503, 503, 200, 200]
    assert sandbox.customers[id]["name"] == "4"


def test_it_strikes_with_a_probability_that_repeats() -> None:
    def run() -> list[int]:
        sandbox = StripeSandbox(seed=7)
        sandbox.faults.add(effect="status", status=503, times=None, probability=0.5)
        return [send(sandbox, "GET", "/v1/customers").status for _ in range(50)]

    first, second = run(), run()

    assert first == second
    assert 10 < first.count(503) < 40


@pytest.mark.parametrize(
    "wrong",
    [{"effect": "explode"}, {"phase": "during"}, {"status": 200}, {"probability": 2}, {"seconds": -1}],
)
def test_it_refuses_faults_that_mean_nothing(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"effect|status|probability"):
        StripeSandbox().faults.add(**wrong)
