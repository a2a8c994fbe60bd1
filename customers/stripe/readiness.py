"""Whether Stripe can be reached, for ``/readyz``, and whether its settings make sense, for ``manage.py check``."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from http.client import HTTPConnection, HTTPSConnection
from typing import Any
from urllib.parse import urlsplit

from django.core.checks import CheckMessage, Error, Warning, register
from django.core.exceptions import ImproperlyConfigured

from customers.integrations import ConfigurationError
from customers.stripe.client import key_check
from customers.stripe.conf import stripe_settings
from customers.sync.conf import sync_settings
from operations.readiness import register as register_component

_SECONDS = 2.0


def stripe_check() -> str:
    """The empty string when Stripe answers, whatever it says.

    The key is not used, so asking costs nothing of the rate limit. An answer is waited for, because a server that
    hangs still accepts connections.
    """
    config = stripe_settings()
    try:
        key_check(config)
    except ConfigurationError:
        return "is not configured"
    parts = urlsplit(config.api_base or "https://api.stripe.com")
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    with closing(kind(parts.netloc, timeout=_SECONDS)) as asked:
        # An address outside the API: no call of the account, so no refused one in its log of requests.
        asked.request("GET", "/healthcheck")
        asked.getresponse().read()
    return ""


def settings_check(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[CheckMessage]:
    """Rules over several settings; nothing is called."""
    try:
        config = stripe_settings()
        sync_settings()
    except ImproperlyConfigured as exc:
        return [Error(str(exc), id="customers.E001")]
    found: list[CheckMessage] = []
    if config.livemode and not config.is_real:
        hint = "Unset STRIPE_API_BASE, or use a test key with it."
        found.append(
            Error("STRIPE_API_KEY is live, but STRIPE_API_BASE is not Stripe.", hint=hint, id="customers.E002")
        )
    if config.api_key and not config.webhook_secrets:
        hint = "Set STRIPE_WEBHOOK_SECRET; manage.py stripe_connect --url registers an endpoint and shows its secret."
        found.append(
            Warning("Without a webhook secret no change in Stripe is heard of.", hint=hint, id="customers.W001")
        )
    return found


def stripe_register() -> None:
    """Tell readiness and the system checks about Stripe."""
    register_component("stripe", stripe_check)
    register(settings_check)
