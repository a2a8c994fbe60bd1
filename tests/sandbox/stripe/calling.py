"""Requests to a sandbox in process, and stripe-python over it."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import stripe

from zenskar.sandbox.stripe.calls import Response
from zenskar.sandbox.stripe.core import StripeSandbox
from zenskar.sandbox.stripe.inprocess import InProcessClient


def send(
    sandbox: StripeSandbox,
    method: str,
    path: str,
    params: dict[str, Any] | None = None,
    *,
    key: str | None = None,
    **headers: str,
) -> Response:
    """One request with the sandbox's own key; ``key`` is the idempotency key."""
    sent = {"Authorization": f"Bearer {sandbox.api_key}", **headers}
    if key is not None:
        sent["Idempotency-Key"] = key
    form = urlencode(params or {})
    if method == "GET":
        return sandbox.handle(method, f"{path}?{form}" if form else path, sent)
    return sandbox.handle(method, path, sent, form.encode())


def client_of(sandbox: StripeSandbox, *, retries: int = 0) -> stripe.StripeClient:
    """stripe-python whose requests go straight into ``sandbox``."""
    return stripe.StripeClient(sandbox.api_key, http_client=InProcessClient(sandbox), max_network_retries=retries)
