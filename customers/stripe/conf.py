"""Settings of the Stripe adapter, with their defaults; each is a Django setting or an environment variable."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from django.conf import settings

from dbresilience.typed_settings import choice, number, setting, whole

# The version that this adapter was written against; the library's own default would move with an upgrade.
API_VERSION: Final = "2026-10-28.endive"
_REAL_HOST: Final = "api.stripe.com"


@dataclass(frozen=True, slots=True, kw_only=True)
class StripeSettings:
    """How Stripe is reached.

    Attributes:
        api_key: secret or restricted key (``STRIPE_API_KEY``).
        api_base: another server than Stripe's, such as the sandbox (``STRIPE_API_BASE``).
        api_version: version of the API and of webhooks (``STRIPE_API_VERSION``).
        account: id of the key's account; when it is set, sync states carry it, and a key of another account is
            refused by ``manage.py stripe_connect`` (``STRIPE_ACCOUNT``).
        webhook_secrets: each may have signed a webhook (``STRIPE_WEBHOOK_SECRET``, several with commas).
        webhook_max_bytes: no larger webhook is read (``STRIPE_WEBHOOK_MAX_BYTES``).
        rate: calls per second over all processes (``STRIPE_RATE_LIMIT``).
        delete_policy: of a customer deleted here: ``refuse`` when it has live subscriptions, ``delete`` it all the
            same, or ``unlink`` and leave it there (``STRIPE_DELETE_POLICY``).
        remote_delete_policy: of a customer deleted there: ``archive``, delete it here too, or ``conflict``
            (``STRIPE_REMOTE_DELETE_POLICY``).
    """

    api_key: str
    api_base: str
    api_version: str
    account: str
    webhook_secrets: tuple[str, ...]
    webhook_max_bytes: int
    rate: float
    delete_policy: str
    remote_delete_policy: str

    @property
    def livemode(self) -> bool:
        """Whether the key is for real money."""
        return self.api_key.startswith(("sk_live_", "rk_live_"))

    @property
    def is_real(self) -> bool:
        """Whether calls go to Stripe itself."""
        return not self.api_base or urlsplit(self.api_base).hostname == _REAL_HOST


def stripe_settings() -> StripeSettings:
    """The settings in force.

    Raises:
        ImproperlyConfigured: a value is malformed; the message names the setting and never holds a key.
    """
    return StripeSettings(
        api_key=settings.STRIPE_API_KEY.strip(),
        api_base=settings.STRIPE_API_BASE.strip().rstrip("/"),
        api_version=str(setting("STRIPE_API_VERSION", API_VERSION)),
        account=str(setting("STRIPE_ACCOUNT", "")),
        webhook_secrets=tuple(secret.strip() for secret in settings.STRIPE_WEBHOOK_SECRETS if secret.strip()),
        webhook_max_bytes=whole("STRIPE_WEBHOOK_MAX_BYTES", 1_000_000, 10_000, 10_000_000),
        rate=number("STRIPE_RATE_LIMIT", 25, 0.1, 10_000),
        delete_policy=choice("STRIPE_DELETE_POLICY", ("refuse", "delete", "unlink")),
        remote_delete_policy=choice("STRIPE_REMOTE_DELETE_POLICY", ("archive", "conflict")),
    )
