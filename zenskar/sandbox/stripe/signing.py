"""Webhook signatures as Stripe makes them. Source: docs.stripe.com/webhooks#verify-manually."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence


def signature_header(body: bytes, *, secrets: Sequence[str], timestamp: int) -> str:
    """The ``Stripe-Signature`` header: one ``v1`` for each secret in force, and the ``v0`` of test mode."""
    parts = [f"t={timestamp}"]
    parts += [f"v1={_digest(body, secret, timestamp)}" for secret in secrets]
    # Test mode adds a signature of a scheme that receivers must ignore.
    parts.append(f"v0={_digest(body, 'v0', timestamp)}")
    return ",".join(parts)


def _digest(body: bytes, secret: str, timestamp: int) -> str:
    return hmac.new(secret.encode(), f"{timestamp}.".encode() + body, hashlib.sha256).hexdigest()
