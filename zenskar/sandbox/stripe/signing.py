"""Webhook signatures as Stripe makes them. Source: docs.stripe.com/webhooks#verify-manually."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from typing import Any, NamedTuple

import orjson

_OLD = 3600


class SignedWebhook(NamedTuple):
    """What an endpoint receives."""

    headers: dict[str, str]
    body: bytes

    @property
    def event(self) -> dict[str, Any]:
        event: dict[str, Any] = orjson.loads(self.body)
        return event


def webhook_sign(event: dict[str, Any], *, secrets: Sequence[str], timestamp: int, effect: str | None) -> SignedWebhook:
    """The request that tells of ``event``, or what ``effect`` makes of it (see Script)."""
    body = orjson.dumps(event, option=orjson.OPT_INDENT_2)
    if effect == "old_timestamp":
        timestamp -= _OLD
    elif effect == "future_timestamp":
        timestamp += _OLD
    elif effect == "wrong_secret":
        secrets = ["whsec_of_somebody_else"]
    header = signature_header(body, secrets=secrets, timestamp=timestamp)
    if effect == "tamper":
        body = body.replace(b'"livemode": false', b'"livemode": true ', 1)
    headers = {
        "Accept": "*/*; q=0.5, application/xml",
        "Cache-Control": "no-cache",
        "Content-Type": "application/json; charset=utf-8",
        "Stripe-Signature": header,
        "User-Agent": "Stripe/1.0 (+https://stripe.com/docs/webhooks)",
    }
    return SignedWebhook(headers=headers, body=body)


def signature_header(body: bytes, *, secrets: Sequence[str], timestamp: int) -> str:
    """The ``Stripe-Signature`` header: one ``v1`` for each secret in force, and the ``v0`` of test mode."""
    parts = [f"t={timestamp}"]
    parts += [f"v1={_digest(body, secret, timestamp)}" for secret in secrets]
    # Test mode adds a signature of a scheme that receivers must ignore.
    parts.append(f"v0={_digest(body, 'v0', timestamp)}")
    return ",".join(parts)


def _digest(body: bytes, secret: str, timestamp: int) -> str:
    return hmac.new(secret.encode(), f"{timestamp}.".encode() + body, hashlib.sha256).hexdigest()
