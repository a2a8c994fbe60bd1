"""Idempotency keys of API v1. Source: docs.stripe.com/api/idempotent_requests.

The status and body of the first request are kept once its endpoint began to execute, errors 500 included, and given
again for at least 24 hours. Requests that validation, authentication or a limiter refused are not kept.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from typing import Any

import orjson

from zenskar.sandbox.stripe.calls import Response
from zenskar.sandbox.stripe.clock import Clock
from zenskar.sandbox.stripe.errors import StripeError
from zenskar.sandbox.stripe.store import Collection

KEPT_FOR = 24 * 3600
MAX_KEY_LENGTH = 255


@dataclass(frozen=True, kw_only=True)
class Saved:
    response: Response
    original_request: str


class IdempotencyKeys:
    """Who used which key for what. Called under the sandbox's lock."""

    def __init__(self, saved: Collection, clock: Clock) -> None:
        self._saved = saved
        self._clock = clock
        self._in_flight: dict[str, tuple[str, str]] = {}

    def begin(self, key: str, *, path: str, params: dict[str, Any]) -> Saved | None:
        """Claim ``key``, or return what it was answered before.

        Raises StripeError: 400 for a key that was used with another path or other parameters, 409 while the first
        request with it is still at work.
        """
        if len(key) > MAX_KEY_LENGTH:
            raise StripeError(
                400, f"Idempotency keys can have up to {MAX_KEY_LENGTH} characters.", type="idempotency_error"
            )
        digest = _digest(params)
        saved = self._fresh(key)
        if saved is not None:
            _compare(key, (saved["path"], saved["digest"]), (path, digest))
            response = Response(
                status=saved["status"],
                headers=dict(saved["headers"]),
                body=base64.b64decode(saved["body"]),
            )
            return Saved(response=response, original_request=saved["request_id"])
        if key in self._in_flight:
            _compare(key, self._in_flight[key], (path, digest))
            raise StripeError(
                409,
                "There is currently another in-progress request using this Idempotent Key (that probably means you "
                f"submitted twice, and the other request is still going through): {key}. Please try again later or "
                "with a new key.",
                type="idempotency_error",
                code="idempotency_key_in_use",
                headers={"Stripe-Should-Retry": "true"},
            )
        self._in_flight[key] = (path, digest)
        return None

    def finish(self, key: str, response: Response | None, *, request_id: str) -> None:
        """Keep ``response`` for ``key``, or with None let the key go unused."""
        path, digest = self._in_flight.pop(key)
        if response is None:
            return
        self._saved.put(
            key,
            {
                "path": path,
                "digest": digest,
                "status": response.status,
                "headers": {name: value for name, value in response.headers.items() if name == "Stripe-Should-Retry"},
                "body": base64.b64encode(response.body).decode(),
                "request_id": request_id,
                "at": self._clock.now(),
            },
        )

    def forget_old(self) -> int:
        """Drop what is no longer kept, so that a state file does not grow for ever. Returns how many."""
        old = [key for key, saved in self._saved.items() if self._clock.now() - saved["at"] >= KEPT_FOR]
        for key in old:
            self._saved.remove(key)
        return len(old)

    def _fresh(self, key: str) -> dict[str, Any] | None:
        saved = self._saved.get(key)
        if saved is not None and self._clock.now() - saved["at"] >= KEPT_FOR:
            self._saved.remove(key)
            return None
        return saved


def _digest(params: dict[str, Any]) -> str:
    return hashlib.sha256(orjson.dumps(params, option=orjson.OPT_SORT_KEYS)).hexdigest()


def _compare(key: str, first: tuple[str, str], now: tuple[str, str]) -> None:
    if first[0] != now[0]:
        raise StripeError(
            400,
            f"Keys for idempotent requests can only be used for the same endpoint they were first used for "
            f"('{now[0]}' vs '{first[0]}'). Try using a key other than '{key}' if you meant to execute a different "
            "request.",
            type="idempotency_error",
        )
    if first[1] != now[1]:
        raise StripeError(
            400,
            "Keys for idempotent requests can only be used with the same parameters they were first used with. Try "
            f"using a key other than '{key}' if you meant to execute a different request.",
            type="idempotency_error",
        )
