from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import stripe

from tests.sandbox.stripe.contract import Account
from zenskar.sandbox.stripe.server import StripeSandboxServer

REAL_KEY = os.environ.get("STRIPE_CONTRACT_KEY", "")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "contract(basis, source): behaviour of Stripe that is documented, or was observed, at source"
    )


@pytest.fixture(scope="session")
def sandbox_server() -> Iterator[StripeSandboxServer]:
    with StripeSandboxServer(webhook_secret=[]) as server:
        yield server


@pytest.fixture(params=["sandbox", "real"] if REAL_KEY else ["sandbox"])
def account(request: pytest.FixtureRequest) -> Iterator[Account]:
    """The contract runs against the sandbox always, and against a test account when STRIPE_CONTRACT_KEY is set."""
    if request.param == "real":
        if not REAL_KEY.startswith(("sk_test_", "rk_test_")):
            raise RuntimeError("STRIPE_CONTRACT_KEY must be a test key: the suite creates and deletes customers.")
        client = stripe.StripeClient(REAL_KEY, max_network_retries=2)
        account = Account(client=client, sandbox=None)
    else:
        server: StripeSandboxServer = request.getfixturevalue("sandbox_server")
        client = stripe.StripeClient(server.sandbox.api_key, base_addresses={"api": server.url})
        account = Account(client=client, sandbox=server.sandbox)
    yield account
    account.clean_up()
