from __future__ import annotations

from typing import Any

from tests.sandbox.stripe.calling import send
from zenskar.sandbox.stripe.clock import Clock
from zenskar.sandbox.stripe.core import StripeSandbox


def found(sandbox: StripeSandbox, query: str) -> list[Any]:
    return list(send(sandbox, "GET", "/v1/customers/search", {"query": query}).json()["data"])


def test_it_searches_what_was_there_a_minute_ago() -> None:
    sandbox = StripeSandbox(clock=Clock(frozen_at=1_800_000_000))
    id = send(sandbox, "POST", "/v1/customers", {"name": "Old name"}).json()["id"]
    sandbox.clock.advance(60)
    send(sandbox, "POST", f"/v1/customers/{id}", {"name": "New name"})

    soon = (len(found(sandbox, "name:'Old name'")), len(found(sandbox, "name:'New name'")))
    listed = [customer["name"] for customer in send(sandbox, "GET", "/v1/customers").json()["data"]]
    sandbox.clock.advance(60)
    later = (len(found(sandbox, "name:'Old name'")), len(found(sandbox, "name:'New name'")))

    assert (soon, later) == ((1, 0), (0, 1))
    assert listed == ["New name"]


def test_it_lags_as_long_as_told() -> None:
    sandbox = StripeSandbox(clock=Clock(frozen_at=1_800_000_000), search_lag=3600)
    send(sandbox, "POST", "/v1/customers", {"name": "Jenny"})

    sandbox.clock.advance(3599)
    before = len(found(sandbox, "name:'Jenny'"))
    sandbox.clock.advance(1)

    assert before == 0
    assert len(found(sandbox, "name:'Jenny'")) == 1
