"""``manage.py stripe_connect`` and the checks of the settings."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from pytest_django import Settings

from customers.stripe.conf import API_VERSION
from customers.stripe.readiness import settings_check, stripe_check
from customers.stripe.signatures import TYPES
from zenskar.sandbox.stripe.core import StripeSandbox
from zenskar.sandbox.stripe.server import StripeSandboxServer

pytestmark = pytest.mark.feature("A14", "F5")


def connect(*arguments: str) -> str:
    out = StringIO()
    call_command("stripe_connect", *arguments, stdout=out)
    return out.getvalue()


def test_it_says_what_the_key_is_for(sandbox: StripeSandbox) -> None:
    said = connect()

    assert f"Account {sandbox.account_id}, mode test." in said
    assert API_VERSION in said
    assert sandbox.request_log.writes() == []


def test_it_registers_the_endpoint_once_and_shows_its_secret_once(sandbox: StripeSandbox) -> None:
    first = connect("--url", "https://crm.example.com")
    second = connect("--url", "https://crm.example.com/")

    (endpoint,) = list(sandbox.store.endpoints)
    assert endpoint["url"] == "https://crm.example.com/webhooks/stripe"
    assert endpoint["api_version"] == API_VERSION
    assert set(endpoint["enabled_events"]) == set(TYPES)
    assert endpoint["secrets"][0] in first
    assert endpoint["secrets"][0] not in second
    assert "registered before" in second


@pytest.mark.parametrize(
    "url",
    [
        "https://crm.example.com/webhooks/stripe/",
        "https://crm.example.com:443",
        "https://CRM.example.com/api/v1/webhooks/stripe",
    ],
)
def test_it_knows_its_endpoint_by_any_spelling_of_its_address(sandbox: StripeSandbox, url: str) -> None:
    connect("--url", "https://crm.example.com")

    said = connect("--url", url)

    assert "registered before" in said
    assert len(sandbox.store.endpoints) == 1


def test_it_registers_services_apart_that_share_a_host(sandbox: StripeSandbox) -> None:
    connect("--url", "https://crm.example.com")
    connect("--url", "https://crm.example.com:8443")
    connect("--url", "https://crm.example.com/other/webhooks")

    assert len(sandbox.store.endpoints) == 3


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000", "http://localhost:8000/webhooks/stripe/"])
def test_it_makes_no_second_endpoint_beside_the_sandboxs_own(sandbox: StripeSandbox, url: str) -> None:
    sandbox.webhooks.url = "http://127.0.0.1:8000/webhooks/stripe"

    said = connect("--url", url)
    sandbox.customer_add(name="Ada")

    (endpoint,) = list(sandbox.store.endpoints)
    queued = sandbox.webhooks.waiting()
    sandbox.webhooks.url = None
    assert endpoint["id"] in said
    assert endpoint["enabled_events"] == ["*"]
    assert queued == 1


def test_it_leaves_an_endpoint_the_other_events_that_it_was_given(sandbox: StripeSandbox) -> None:
    connect("--url", "https://crm.example.com")
    (endpoint,) = list(sandbox.store.endpoints)
    changed = {**endpoint, "enabled_events": ["invoice.paid"], "status": "disabled"}
    sandbox.store.endpoints.put(endpoint["id"], changed)

    connect("--url", "https://crm.example.com")

    (endpoint,) = list(sandbox.store.endpoints)
    assert set(endpoint["enabled_events"]) == {"invoice.paid", *TYPES}
    assert endpoint["status"] == "enabled"


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("", "STRIPE_API_KEY is not set."),
        ("pk_test_public", "neither a secret nor a restricted key"),
        ("sk_live_secret", "STRIPE_API_KEY is a live key, but STRIPE_API_BASE is not Stripe."),
        ("sk_test_wrong_key_0000", "Invalid API Key"),
    ],
)
def test_it_says_in_one_line_what_is_wrong_with_the_key(
    sandbox: StripeSandbox, settings: Settings, key: str, message: str
) -> None:
    settings.STRIPE_API_KEY = key

    with pytest.raises(CommandError, match=message) as caught:
        connect()

    assert "\n" not in str(caught.value)
    assert not key or key not in str(caught.value)


@pytest.mark.parametrize(
    ("permissions", "message"),
    [
        ({"account_read", "subscription_read"}, "may not read customers"),
        ({"account_read", "subscription_read", "customer_read"}, "may not write customers"),
        ({"account_read", "customer_write"}, "may not read subscriptions"),
        ({"customer_write", "subscription_read"}, "may not write webhook endpoints"),
        ({"customer_write", "subscription_read", "webhook_read"}, "may not write webhook endpoints"),
    ],
)
def test_it_names_the_permission_that_is_missing(settings: Settings, permissions: set[str], message: str) -> None:
    key = "rk_test_restricted_key"
    with StripeSandboxServer(restricted_keys={key: permissions}) as server:
        settings.STRIPE_API_KEY, settings.STRIPE_API_BASE = key, server.url

        with pytest.raises(CommandError, match=message):
            connect("--url", "https://crm.example.com")


def test_it_refuses_the_key_of_another_account(sandbox: StripeSandbox, settings: Settings) -> None:
    settings.STRIPE_ACCOUNT = "acct_other"

    with pytest.raises(CommandError, match="STRIPE_ACCOUNT is acct_other"):
        connect()


@pytest.mark.parametrize("url", ["crm.example.com", "ftp://example.com", "https://"])
def test_it_refuses_what_is_no_address(sandbox: StripeSandbox, url: str) -> None:
    with pytest.raises(CommandError, match="--url must be an address"):
        connect("--url", url)


def test_it_says_that_stripe_does_not_answer(settings: Settings) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings.STRIPE_API_KEY, settings.STRIPE_API_BASE = "sk_test_key", f"http://127.0.0.1:{port}"

    with pytest.raises(CommandError) as caught:
        connect()
    with pytest.raises(OSError):
        stripe_check()

    assert str(caught.value) == f"Stripe at 127.0.0.1:{port} cannot be reached: Connection refused."


def test_it_is_ready_when_stripe_takes_connections(sandbox: StripeSandbox, settings: Settings) -> None:
    before = len(sandbox.request_log)

    reachable = stripe_check()
    settings.STRIPE_API_KEY = ""

    assert reachable == ""
    assert len(sandbox.request_log) == before, "asking whether it answers is no call of the account"
    assert stripe_check() == "is not configured"


def test_it_is_not_ready_when_stripe_hangs(settings: Settings) -> None:
    with socket.socket() as hanging:
        hanging.bind(("127.0.0.1", 0))
        hanging.listen()  # The kernel takes the connection; nobody ever answers.
        settings.STRIPE_API_KEY = "sk_test_key"
        settings.STRIPE_API_BASE = f"http://127.0.0.1:{hanging.getsockname()[1]}"

        with pytest.raises(TimeoutError):
            stripe_check()


@pytest.mark.parametrize(
    ("name", "value", "found"),
    [
        ("STRIPE_DELETE_POLICY", "perhaps", "customers.E001"),
        ("STRIPE_RATE_LIMIT", "fast", "customers.E001"),
        ("SYNC_FIELD_OWNER", "{", "customers.E001"),
        ("SYNC_FIELD_OWNER", {"name": "nobody"}, "customers.E001"),
        ("SYNC_CONCURRENCY", 0, "customers.E001"),
        ("STRIPE_API_KEY", "sk_live_x", "customers.E002"),
        ("STRIPE_WEBHOOK_SECRETS", [], "customers.W001"),
    ],
)
def test_it_checks_the_settings(
    sandbox: StripeSandbox, settings: Settings, name: str, value: object, found: str
) -> None:
    before = settings_check(None)
    setattr(settings, name, value)

    after = settings_check(None)

    assert before == []
    assert [message.id for message in after] == [found]


def test_the_library_leaves_nothing_in_the_home_folder(
    sandbox: StripeSandbox, settings: Settings, tmp_path: Path
) -> None:
    code = (
        "import django; django.setup()\n"
        "from customers.stripe.conf import stripe_settings\n"
        "from customers.stripe.connecting import account_check\n"
        "print(account_check(stripe_settings()))"
    )
    environment = {name: value for name, value in os.environ.items() if name != "XDG_CONFIG_HOME"}
    environment |= {"STRIPE_API_KEY": settings.STRIPE_API_KEY, "STRIPE_API_BASE": settings.STRIPE_API_BASE}
    environment |= {"HOME": str(tmp_path), "DJANGO_SETTINGS_MODULE": "zenskar.settings"}

    answer = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)

    assert answer.stdout.strip() == sandbox.account_id, answer.stderr
    assert list(tmp_path.iterdir()) == []
