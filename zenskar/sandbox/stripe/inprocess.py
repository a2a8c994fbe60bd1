"""stripe-python without a socket: an HTTP client that hands requests straight to a sandbox."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import stripe

from zenskar.sandbox.stripe.core import StripeSandbox


class InProcessClient(stripe.HTTPClient):
    """Give it to ``StripeClient(http_client=…)``. A connection that is cut or held is an APIConnectionError at once."""

    name = "in-process"

    def __init__(self, sandbox: StripeSandbox) -> None:
        super().__init__()
        self._sandbox = sandbox

    def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None,
        post_data: Any = None,
        *,
        _usage: list[str] | None = None,
    ) -> tuple[str, int, Mapping[str, str]]:
        parts = urlsplit(url)
        target = f"{parts.path}?{parts.query}" if parts.query else parts.path
        body = post_data.encode() if isinstance(post_data, str) else bytes(post_data or b"")
        response = self._sandbox.handle(method.upper(), target, headers or {}, body)
        if response.cut is not None:
            message = f"The sandbox cut the connection: {response.cut}"
            raise stripe.APIConnectionError(message, should_retry=True)  # type: ignore[no-untyped-call]
        lowered = {name.lower(): value for name, value in response.headers.items()}
        return response.body.decode(), response.status, lowered

    def close(self) -> None:
        """Nothing is held open."""
