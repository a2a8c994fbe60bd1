from __future__ import annotations

import threading

import pytest

from tests.sandbox.stripe.calling import send
from zenskar.sandbox.stripe.clock import Clock
from zenskar.sandbox.stripe.core import StripeSandbox

DAY = 24 * 3600


def test_it_forgets_a_key_after_a_day_and_not_before() -> None:
    sandbox = StripeSandbox(clock=Clock(frozen_at=1_800_000_000))
    first = send(sandbox, "POST", "/v1/customers", {"name": "Jenny"}, key="k").json()

    sandbox.clock.advance(DAY - 1)
    within = send(sandbox, "POST", "/v1/customers", {"name": "Jenny"}, key="k").json()
    sandbox.clock.advance(1)
    after = send(sandbox, "POST", "/v1/customers", {"name": "Jenny"}, key="k").json()

    assert within["id"] == first["id"]
    assert after["id"] != first["id"]
    assert len(sandbox.customers) == 2


def test_it_answers_409_while_the_first_request_is_at_work() -> None:
    working, finish = threading.Event(), threading.Event()

    def sleep(seconds: float) -> None:
        working.set()
        assert finish.wait(60)

    sandbox = StripeSandbox(sleep=sleep)
    sandbox.faults.add(route="POST /v1/customers", effect="delay", seconds=1)
    answers: list[int] = []
    thread = threading.Thread(
        target=lambda: answers.append(send(sandbox, "POST", "/v1/customers", {"name": "x"}, key="k").status)
    )
    thread.start()
    assert working.wait(60)

    second = send(sandbox, "POST", "/v1/customers", {"name": "x"}, key="k")
    finish.set()
    thread.join(60)
    third = send(sandbox, "POST", "/v1/customers", {"name": "x"}, key="k")

    assert answers == [200]
    assert (second.status, second.json()["error"]["code"]) == (409, "idempotency_key_in_use")
    assert second.headers["Stripe-Should-Retry"] == "true"
    assert third.headers["Idempotent-Replayed"] == "true"
    assert len(sandbox.customers) == 1


def test_it_takes_one_of_many_concurrent_requests_with_one_key() -> None:
    sandbox = StripeSandbox()
    barrier = threading.Barrier(8)
    answers: list[tuple[int, str]] = []

    def create() -> None:
        barrier.wait(60)
        response = send(sandbox, "POST", "/v1/customers", {"name": "x"}, key="k")
        answers.append((response.status, response.json().get("id", "")))

    threads = [threading.Thread(target=create) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert len(answers) == 8
    assert {status for status, _ in answers} <= {200, 409}
    assert len({id for status, id in answers if status == 200}) == 1
    assert len(sandbox.customers) == 1


def test_it_replays_a_saved_500_and_advises_against_retrying() -> None:
    sandbox = StripeSandbox()
    sandbox.faults.add(route="POST /v1/customers", status=500)

    first = send(sandbox, "POST", "/v1/customers", {"name": "x"}, key="k")
    again = send(sandbox, "POST", "/v1/customers", {"name": "x"}, key="k")

    assert (first.status, again.status) == (500, 500)
    assert first.headers["Stripe-Should-Retry"] == "false"
    assert again.headers["Idempotent-Replayed"] == "true"
    assert again.headers["Stripe-Should-Retry"] == "false"
    assert again.body == first.body
    assert sandbox.customers == {}


@pytest.mark.parametrize("status", [429, 503])
def test_it_does_not_keep_what_never_reached_an_endpoint(status: int) -> None:
    sandbox = StripeSandbox()
    sandbox.faults.add(route="POST /v1/customers", status=status)

    first = send(sandbox, "POST", "/v1/customers", {"name": "x"}, key="k")
    again = send(sandbox, "POST", "/v1/customers", {"name": "x"}, key="k")

    assert (first.status, again.status) == (status, 200)
    assert "Idempotent-Replayed" not in again.headers


def test_it_keeps_a_404_since_its_endpoint_was_executed() -> None:
    sandbox = StripeSandbox()

    send(sandbox, "POST", "/v1/customers/cus_nobody", {"name": "x"}, key="k")
    again = send(sandbox, "POST", "/v1/customers/cus_nobody", {"name": "x"}, key="k")

    assert (again.status, again.headers["Idempotent-Replayed"]) == (404, "true")


def test_it_keeps_a_400_that_came_from_executing() -> None:
    sandbox = StripeSandbox()
    full = {f"metadata[{number}]": "x" for number in range(50)}
    id = send(sandbox, "POST", "/v1/customers", full).json()["id"]

    first = send(sandbox, "POST", f"/v1/customers/{id}", {"metadata[more]": "x"}, key="k")
    send(sandbox, "POST", f"/v1/customers/{id}", {"metadata[0]": ""})
    again = send(sandbox, "POST", f"/v1/customers/{id}", {"metadata[more]": "x"}, key="k")

    assert (first.status, again.status) == (400, 400)
    assert again.headers["Idempotent-Replayed"] == "true"


def test_it_writes_nothing_when_an_expansion_is_impossible() -> None:
    sandbox = StripeSandbox()

    refused = send(sandbox, "POST", "/v1/customers", {"expand[]": "name"}, key="k")

    assert refused.status == 400
    assert sandbox.customers == {}
    assert sandbox.events == []
