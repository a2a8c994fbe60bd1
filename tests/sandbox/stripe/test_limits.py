from __future__ import annotations

from tests.sandbox.stripe.calling import send
from zenskar.sandbox.stripe.clock import Clock
from zenskar.sandbox.stripe.core import StripeSandbox


def test_it_answers_429_beyond_the_limit_and_not_a_second_later() -> None:
    sandbox = StripeSandbox(clock=Clock(frozen_at=1_800_000_000))
    sandbox.limits.switch_on()

    statuses = [send(sandbox, "POST", "/v1/customers", {}).status for _ in range(26)]
    refused = send(sandbox, "GET", "/v1/customers")
    sandbox.clock.advance(1)
    later = send(sandbox, "GET", "/v1/customers")

    assert statuses == [200] * 25 + [429]
    assert refused.headers["Stripe-Rate-Limited-Reason"] == "global-rate"
    assert refused.json()["error"]["code"] == "rate_limit"
    assert later.status == 200
    assert len(sandbox.customers) == 25


def test_it_limits_each_endpoint_on_its_own() -> None:
    sandbox = StripeSandbox(clock=Clock(frozen_at=1_800_000_000))
    sandbox.limits.switch_on(100)

    answers = [send(sandbox, "GET", "/v1/customers") for _ in range(26)]
    other = send(sandbox, "GET", "/v1/events")

    assert answers[-1].headers["Stripe-Rate-Limited-Reason"] == "endpoint-rate"
    assert other.status == 200


def test_it_does_not_limit_unless_switched_on() -> None:
    sandbox = StripeSandbox(clock=Clock(frozen_at=1_800_000_000))

    statuses = {send(sandbox, "GET", "/v1/customers").status for _ in range(60)}

    assert statuses == {200}
