"""Calls to Stripe: one client per process with kept connections, and its errors as an integration's."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import urlsplit

import orjson
import requests
import stripe

from customers.integrations import (
    ConfigurationError,
    IntegrationError,
    KeyMisused,
    PermanentError,
    PermissionMissing,
    RateLimited,
    RemoteMissing,
    RetryableError,
    Unreachable,
)
from customers.stripe.conf import StripeSettings
from customers.stripe.http import PlainSession

CONNECT_TIMEOUT: Final = 3.0
READ_TIMEOUT: Final = 10.0
CALL_TIMEOUT: Final = CONNECT_TIMEOUT + READ_TIMEOUT
_TEST_KEYS: Final = ("sk_test_", "rk_test_")
_LIVE_KEYS: Final = ("sk_live_", "rk_live_")
_KEY: Final = re.compile(r"\b([sr]k_(?:test|live)_|whsec_)\w+")

# Otherwise it keeps an id in the home folder of whoever runs this, and sends it and how long each call took.
stripe.enable_telemetry = False

_clients: dict[tuple[int, StripeSettings, type[stripe.RequestsClient]], stripe.StripeClient] = {}
_guard = threading.Lock()
_kept = threading.local()


class _Reader(stripe.RequestsClient):
    """Keeps what was answered for its own thread, and lets the library see an empty object.

    The library logs, reads and wraps every answer; of a page of a hundred customers that costs more than all the rest.
    What is no success it gets as it is, for it knows all errors.
    """

    # The library's own differs from its base class in the same way.
    def request(  # type: ignore[override]
        self, method: str, url: str, headers: Mapping[str, str] | None, post_data: Any = None
    ) -> tuple[bytes, int, Mapping[str, str]]:
        content, status, answered = super().request(method, url, headers, post_data)
        if status != 200:
            return content, status, answered
        _kept.content = content
        return b"{}", status, answered


def stripe_client(config: StripeSettings) -> stripe.StripeClient:
    """The client of this process for these settings.

    Raises:
        ConfigurationError: there is no key, it is none, or it is a live one and would go to another server.
    """
    return _client(config, stripe.RequestsClient)


def stripe_read(config: StripeSettings, path: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """One GET whose answer is read as plain JSON, without the library's objects.

    Args:
        path: as ``/v1/customers``.
        params: of the query.

    Raises:
        IntegrationError: as any other call.
    """
    with errors_translated():
        _client(config, _Reader).raw_request("get", path, **params)
    try:
        found: dict[str, Any] = orjson.loads(_kept.content)
    except orjson.JSONDecodeError as exc:
        raise RetryableError("The answer is no JSON.", code="no_answer") from exc
    finally:
        del _kept.content
    return found


def _client(config: StripeSettings, http: type[stripe.RequestsClient]) -> stripe.StripeClient:
    key_check(config)
    # The process is part of the key: a child must not share sockets with its parent after a fork.
    key = (os.getpid(), config, http)
    with _guard:
        if key not in _clients:
            for old in [other for other in _clients if other[0] != key[0]]:
                del _clients[old]
            _clients[key] = _client_new(config, http)
        return _clients[key]


def _client_new(config: StripeSettings, http: type[stripe.RequestsClient]) -> stripe.StripeClient:
    # No proxy of the environment stands between us and a server of our own.
    session = PlainSession(environment=config.is_real)
    return stripe.StripeClient(
        config.api_key,
        stripe_version=config.api_version,
        base_addresses={"api": config.api_base} if config.api_base else None,
        # Every repeat passes our own gate and ladder, with the key that was written down: none is made unseen.
        max_network_retries=0,
        http_client=http(timeout=(CONNECT_TIMEOUT, READ_TIMEOUT), session=session),
    )


def key_check(config: StripeSettings) -> None:
    """Whether the key may be used with these settings; nothing is called.

    Raises:
        ConfigurationError: it may not; the message says why and holds no key.
    """
    if not config.api_key:
        raise ConfigurationError("STRIPE_API_KEY is not set.", code="no_key")
    if not config.api_key.startswith(_TEST_KEYS + _LIVE_KEYS) or not config.api_key.isascii():
        raise ConfigurationError("STRIPE_API_KEY is neither a secret nor a restricted key.", code="no_key")
    if config.livemode and not config.is_real:
        # A live key belongs to nobody but Stripe.
        raise ConfigurationError("STRIPE_API_KEY is a live key, but STRIPE_API_BASE is not Stripe.", code="live_key")


@contextmanager
def errors_translated() -> Iterator[None]:
    """Turn the library's errors into those of ``customers.integrations``, by class and status."""
    try:
        yield
    except stripe.StripeError as exc:
        raise _translated(exc) from exc


def _translated(exc: stripe.StripeError) -> IntegrationError:
    # The message may quote what was sent; keys never leave this function.
    message = _KEY.sub(r"\1…", exc.user_message or type(exc).__name__)
    code = exc.code or (exc.error.code if exc.error is not None and exc.error.code else "") or ""
    headers = {name.lower(): value for name, value in (exc.headers or {}).items()}
    status = exc.http_status or 0
    replayed = headers.get("idempotent-replayed") == "true"
    match exc:
        case stripe.APIConnectionError():
            return Unreachable(_unreachable(exc), code="unreachable")
        case stripe.RateLimitError() if code == "lock_timeout":
            # About one object, not about our rate: the row's own ladder.
            return RetryableError(message, code=code)
        case stripe.RateLimitError():
            return RateLimited(message, code=code or "rate_limit", retry_after=_seconds(headers.get("retry-after")))
        case stripe.AuthenticationError():
            return ConfigurationError(message, code=code or "authentication")
        case stripe.PermissionError():
            return PermissionMissing(message, code=code or "permission")
        case stripe.IdempotencyError() if status != 409:
            return KeyMisused(message, code="idempotency_error")
        case stripe.InvalidRequestError() if status == 404 and code == "resource_missing":
            return RemoteMissing(message, code=code)
    if 400 <= status < 500 and status != 409:
        return PermanentError(message, code=code or str(status), replayed=replayed)
    # 409 (the same key is at work), 5xx, and answers that are none: a later repeat of the same key tells.
    return RetryableError(message, code=code or str(status or "no_answer"), replayed=replayed)


def _unreachable(exc: stripe.APIConnectionError) -> str:
    """Which host and why, in one line; the library's own text is a paragraph about its support."""
    host, why = "Stripe", ""
    cause = exc.__cause__ or exc.__context__
    if isinstance(cause, requests.RequestException) and cause.request is not None and cause.request.url:
        host = f"Stripe at {urlsplit(str(cause.request.url)).netloc.rpartition('@')[2]}"
    match cause:
        case requests.exceptions.SSLError():
            why = "its certificate is not trusted"
        case requests.exceptions.ConnectTimeout():
            why = f"no connection within {CONNECT_TIMEOUT:.0f} s"
        case requests.exceptions.Timeout():
            why = f"no answer within {READ_TIMEOUT:.0f} s"
        case _:
            why = _root(cause)
    return f"{host} cannot be reached{f': {why}' if why else ''}."


def _root(exc: BaseException | None) -> str:
    """What the operating system says below all that libraries wrapped around it."""
    found = ""
    while exc is not None:
        if isinstance(exc, OSError) and exc.strerror:
            found = exc.strerror
        exc = exc.__cause__ or exc.__context__
    return found


def _seconds(value: str | None) -> float:
    return min(float(value), 3600.0) if value and value.isdecimal() else 0.0
