"""The sandbox itself: takes a request, gives an answer, and remembers. Everything else hangs on it.

Mounted in process through ``handle``; the server puts it on a socket.
"""

from __future__ import annotations

import base64
import binascii
import heapq
import re
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import orjson

from zenskar.sandbox.stripe import control, dashboard, subscriptions
from zenskar.sandbox.stripe.accounts import account_invalid
from zenskar.sandbox.stripe.calls import Call, LoggedRequest, RequestLog, Response
from zenskar.sandbox.stripe.clock import Clock
from zenskar.sandbox.stripe.errors import (
    NEVER_SAVED,
    LiveKeyRefused,
    StripeError,
    lock_timeout,
    rate_limited,
    server_error,
    unrecognized_url,
)
from zenskar.sandbox.stripe.events import event_new
from zenskar.sandbox.stripe.expanding import expanded
from zenskar.sandbox.stripe.faults import Fault, Faults
from zenskar.sandbox.stripe.fields import parse
from zenskar.sandbox.stripe.forms import form_decode
from zenskar.sandbox.stripe.idempotency import IdempotencyKeys
from zenskar.sandbox.stripe.ids import IdSource
from zenskar.sandbox.stripe.limits import RateLimiter
from zenskar.sandbox.stripe.routes import Route, route_of
from zenskar.sandbox.stripe.searching import SearchIndex
from zenskar.sandbox.stripe.store import Store
from zenskar.sandbox.stripe.webhooks import RETRY_AFTER, Webhooks

# The version of stripe-python 16.1; what the account renders events with.
API_VERSION = "2026-10-28.endive"
DEFAULT_KEY = "sk_test_sandbox"
DEFAULT_SECRET = "whsec_sandbox"  # noqa: S105 - opens nothing but this sandbox
SEARCH_LAG = 60.0
_VERSION = re.compile(r"\d{4}-\d{2}-\d{2}(\.[a-z_]+)?")


class StripeSandbox:
    """A Stripe account on this machine.

    Arguments:
        api_key: the secret key it accepts; only ``sk_test_…`` and ``rk_test_…``.
        restricted_keys: further keys and the permissions they have, such as ``{"rk_test_x": {"customer_read"}}``.
        webhook_url, webhook_secret: the endpoint to which every event goes; several secrets after a roll. Without a
            URL, deliveries wait for ``webhooks.pending()``.
        state: a file to keep everything in; None forgets it at the end.
        clock: shared time. search_lag: seconds until search finds a write.
        address_merges: whether an address in an update is merged into the present one or replaces it; Stripe does
            not document which, so code must not depend on it.
    """

    def __init__(
        self,
        *,
        api_key: str = DEFAULT_KEY,
        restricted_keys: Mapping[str, set[str]] | None = None,
        webhook_url: str | None = None,
        webhook_secret: str | Sequence[str] = DEFAULT_SECRET,
        state: Path | None = None,
        clock: Clock | None = None,
        search_lag: float = SEARCH_LAG,
        retry_after: Sequence[float] = RETRY_AFTER,
        address_merges: bool = False,
        seed: int | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        for key in (api_key, *(restricted_keys or {})):
            if not key.startswith(("sk_test_", "rk_test_")):
                raise LiveKeyRefused("The sandbox takes test keys only: sk_test_… or rk_test_….")
        self.api_key = api_key
        self.api_version = API_VERSION
        self.address_merges = address_merges
        self.clock = clock or Clock()
        self.ids = IdSource(seed)
        self.store = Store(state)
        self.faults = Faults(seed or 0)
        self.limits = RateLimiter(self.clock)
        self.request_log = RequestLog()
        self.search = SearchIndex(self.clock, search_lag)
        self.idempotency = IdempotencyKeys(self.store.idempotency, self.clock)
        self.webhooks = Webhooks(
            store=self.store,
            clock=self.clock,
            new_id=self.ids.new,
            url=webhook_url,
            secrets=[webhook_secret] if isinstance(webhook_secret, str) else webhook_secret,
            retry_after=retry_after,
            seed=seed or 0,
        )
        self.exposed = False
        self.page_token = secrets.token_urlsafe(24)
        self._restricted = dict(restricted_keys or {})
        self._sleep = sleep
        self._later: list[tuple[float, int, Callable[[], None]]] = []
        self._later_count = 0
        self._later_lock = threading.Lock()
        self.wake = threading.Event()
        self.clock.on_advance(self.run_due)
        self._account()
        for customer in self.store.customers:
            self.search.put(customer, at_once=True)

    # Requests.

    def handle(self, method: str, path: str, headers: Mapping[str, str], body: bytes = b"") -> Response:
        """Answer one request. ``path`` may carry a query; header names in any case."""
        lowered = {name.lower(): value for name, value in headers.items()}
        target = urlsplit(path)
        clean = unquote(target.path)
        if not clean.startswith("/v1/"):
            return control.handle(self, method, clean, target.query, lowered, body)
        request_id = self.ids.new("req")
        line = LoggedRequest(
            id=request_id,
            method=method,
            path=clean,
            params={},
            idempotency_key=lowered.get("idempotency-key"),
            started_at=self.clock.now(),
        )
        self.request_log.add(line)
        try:
            response = self._answer(line, method, clean, target.query, lowered, body)
        except StripeError as error:
            response = self._failed(error, request_id)
        line.status = response.status if response.cut is None else None
        response.headers.setdefault("Request-Id", request_id)
        response.headers.setdefault("Stripe-Version", lowered.get("stripe-version", self.api_version))
        if line.idempotency_key is not None:
            response.headers.setdefault("Idempotency-Key", line.idempotency_key)
        return response

    def _answer(
        self, line: LoggedRequest, method: str, path: str, query: str, headers: dict[str, str], body: bytes
    ) -> Response:
        key = self._authenticated(headers)
        found = route_of(method, path)
        if found is None:
            raise unrecognized_url(method, path)
        route, id = found
        self._permitted(key, route)
        version = headers.get("stripe-version", self.api_version)
        if _VERSION.fullmatch(version) is None:
            raise StripeError(400, f"Invalid Stripe API version: {version[:50]}")
        if headers.get("stripe-account", self.account_id) != self.account_id:
            raise account_invalid(headers["stripe-account"])
        limited = self.limits.check(route.name)
        if limited is not None:
            raise limited
        line.params = _params(method, query, headers, body)
        call = Call(
            method=method,
            path=path,
            route=route.name,
            id=id,
            request_id=line.id,
            api_version=version,
            idempotency_key=(headers.get("idempotency-key") or None) if method == "POST" else None,
            raw=line.params,
            params={},
        )
        fault = self.faults.strike(method, path)
        if fault is not None:
            line.fault = f"{fault.phase}:{fault.effect}"
        return self._with_fault(call, route, line, fault)

    def _with_fault(self, call: Call, route: Route, line: LoggedRequest, fault: Fault | None) -> Response:
        before = fault if fault is not None and fault.phase == "before" else None
        after = fault if fault is not None and fault.phase == "after" else None
        forced: StripeError | None = None
        if before is not None:
            if before.effect in ("reset", "hang"):
                return _cut(before)
            if before.effect == "lock_timeout":
                raise lock_timeout()
            if before.effect == "status":
                if before.status == 429:
                    raise rate_limited("global-rate")
                forced = server_error(before.status)
                if before.status in NEVER_SAVED:
                    # It never reached an endpoint: nothing began, and nothing is kept for the key.
                    raise forced
        replayed = self._claimed(call, line)
        if replayed is not None:
            return replayed
        if fault is not None and fault.effect == "late_commit":
            # The key stays in flight until then: a repeat in the meantime is answered 409.
            self.run_later(fault.seconds, lambda: self._run_late(call, route, line))
            return _cut(fault)
        if before is not None and before.effect == "delay":
            self._sleep(before.seconds)
        kept_error = server_error() if after is not None and after.effect == "status" and after.status == 500 else None
        response = self._run(call, route, line, forced, kept_error)
        if after is None:
            return response
        if after.effect == "delay":
            self._sleep(after.seconds)
            return response
        if after.effect == "status":
            # Other than a 500 it was lost on the way: what the key keeps is the true result.
            return response if after.status == 500 else self._failed(server_error(after.status), call.request_id)
        return _cut(after)

    def _claimed(self, call: Call, line: LoggedRequest) -> Response | None:
        """Claim the idempotency key. Returns the answer when it was given before."""
        if call.idempotency_key is None:
            return None
        with self.store.transaction():
            saved = self.idempotency.begin(call.idempotency_key, path=call.path, params=call.raw)
        if saved is None:
            return None
        line.replayed = True
        saved.response.headers.update(
            {
                "Content-Type": "application/json",
                "Idempotent-Replayed": "true",
                "Original-Request": saved.original_request,
            }
        )
        return saved.response

    def _run(
        self,
        call: Call,
        route: Route,
        line: LoggedRequest,
        forced: StripeError | None,
        kept_error: StripeError | None,
    ) -> Response:
        """Execute under the lock and keep the result for the key. ``forced`` fails it; ``kept_error`` hides it."""
        kept: Response | None = None
        with self.store.transaction():
            try:
                response = self._executed(call, route, line, forced)
                if kept_error is not None and response.status < 300:
                    response = self._failed(kept_error, call.request_id)
                if response.status == 500 and call.idempotency_key is not None:
                    # A repeat would only be given the same again.
                    response.headers["Stripe-Should-Retry"] = "false"
                if response.status not in NEVER_SAVED:
                    kept = response
            finally:
                if call.idempotency_key is not None:
                    self.idempotency.finish(call.idempotency_key, kept, request_id=call.request_id)
        if call.idempotency_key is not None and kept is not None:
            response.headers["Original-Request"] = call.request_id
        return response

    def _run_late(self, call: Call, route: Route, line: LoggedRequest) -> None:
        self._run(call, route, line, None, None)

    def _executed(self, call: Call, route: Route, line: LoggedRequest, forced: StripeError | None) -> Response:
        try:
            call.params = parse(route.table, call.raw)
            if forced is not None:
                raise forced
            body = route.handler(self, call)
            line.wrote = call.method != "GET"
            body = expanded(self, body, call.params.get("expand") or [])
        except StripeError as error:
            line.error_code = error.code or error.type
            return self._failed(error, call.request_id)
        return Response(
            status=200,
            headers={"Content-Type": "application/json"},
            body=orjson.dumps(body, option=orjson.OPT_INDENT_2),
        )

    def _failed(self, error: StripeError, request_id: str) -> Response:
        url = f"https://dashboard.stripe.com/{self.account_id}/test/logs/{request_id}"
        return Response(
            status=error.status,
            headers={"Content-Type": "application/json", **error.headers},
            body=orjson.dumps(error.body(url), option=orjson.OPT_INDENT_2),
        )

    def authenticated(self, headers: Mapping[str, str]) -> bool:
        """Whether lower-cased ``headers`` carry the full key."""
        given = _key_of(headers)
        return given is not None and secrets.compare_digest(given.encode(), self.api_key.encode())

    def _authenticated(self, headers: Mapping[str, str]) -> str:
        given = _key_of(headers)
        if given is None:
            raise StripeError(
                401,
                "You did not provide an API key. You need to provide your API key in the Authorization header, using "
                "Bearer auth (e.g. 'Authorization: Bearer YOUR_SECRET_KEY'). See "
                "https://stripe.com/docs/api#authentication for details, or we can help at https://support.stripe.com/.",
                headers={"WWW-Authenticate": 'Bearer realm="Stripe"'},
            )
        if not self.authenticated(headers) and given not in self._restricted:
            masked = f"{given[:8]}{'*' * 8}{given[-4:]}" if len(given) > 12 else "*" * 8
            raise StripeError(
                401,
                f"Invalid API Key provided: {masked}",
                headers={"WWW-Authenticate": 'Bearer realm="Stripe"'},
            )
        return given

    def _permitted(self, key: str, route: Route) -> None:
        allowed = self._restricted.get(key)
        needed = f"{route.permission}_{'read' if route.method == 'GET' else 'write'}"
        # Write includes read, as in Stripe's settings of restricted keys.
        if allowed is not None and not {needed, f"{route.permission}_write"} & allowed:
            raise StripeError(
                403,
                f"The provided key '{key[:8]}{'*' * 8}' does not have the required permissions for this endpoint on "
                f"account '{self.account_id}'. Having the 'rak_{needed}' permission would allow this request to "
                "continue.",
            )

    # What handlers use.

    def customer_store(self, customer: dict[str, Any]) -> None:
        self.store.customers.put(customer["id"], customer)
        self.search.put(customer)

    def event_publish(
        self,
        type: str,
        object: dict[str, Any],
        *,
        previous: dict[str, Any] | None = None,
        call: Call,
    ) -> dict[str, Any]:
        """Record an event and queue it for the endpoints that want it."""
        event = event_new(self, type, object, previous=previous, call=call)
        self.store.events.put(event["id"], event)
        queued = self.webhooks.queue(event)
        if queued:
            event = {**event, "pending_webhooks": queued}
            self.store.events.put(event["id"], event)
        return event

    def subscriptions_cancel(self, *, customer_id: str, call: Call) -> None:
        for subscription in self.store.subscriptions:
            if subscription["customer"] == customer_id and subscription["status"] not in subscriptions.ENDED:
                subscriptions.canceled(self, subscription, call=call)

    # What tests and the demonstration use.

    @property
    def account_id(self) -> str:
        return str(self._account()["id"])

    @property
    def account_created(self) -> int:
        return int(self._account()["created"])

    @property
    def customers(self) -> dict[str, dict[str, Any]]:
        """All customers that are not deleted, by id."""
        with self.store.lock:
            return {each["id"]: each for each in self.store.customers if not each.get("deleted")}

    @property
    def events(self) -> list[dict[str, Any]]:
        """All events, oldest first."""
        with self.store.lock:
            return list(self.store.events)

    def customer_edit(self, customer_id: str, **changes: Any) -> dict[str, Any]:
        """Change a customer as somebody in the dashboard would: the event names no request and no key.

        Takes what the API takes, as nested dictionaries of strings; None unsets. Raises StripeError as the API does.
        """
        return dashboard.customer_edit(self, customer_id, changes)

    def customer_remove(self, customer_id: str) -> None:
        """Delete a customer as somebody in the dashboard would."""
        dashboard.customer_remove(self, customer_id)

    def customer_add(self, **fields: Any) -> dict[str, Any]:
        """Create a customer as somebody in the dashboard would."""
        return dashboard.customer_add(self, fields)

    def reset(self) -> None:
        """Forget customers, events, keys, faults, scripts and the log; keep account and endpoints."""
        with self.store.transaction():
            for collection in self.store.collections():
                if collection.kind not in ("account", "endpoints"):
                    collection.clear()
            self.search.clear()
        self.webhooks.reset()
        self.faults.clear()
        self.limits.switch_off()
        self.request_log.clear()

    def run_later(self, seconds: float, function: Callable[[], None]) -> None:
        """Run ``function`` when the clock is ``seconds`` further."""
        with self._later_lock:
            self._later_count += 1
            heapq.heappush(self._later, (self.clock.now() + seconds, self._later_count, function))
        self.wake.set()

    def run_due(self) -> None:
        """Run what became due. The server's thread calls it, and ``clock.advance`` does."""
        while True:
            with self._later_lock:
                if not self._later or self._later[0][0] > self.clock.now():
                    break
                _, _, function = heapq.heappop(self._later)
            function()
        self.webhooks.wake.set()

    def next_due(self) -> float | None:
        """When ``run_due`` has something to do."""
        with self._later_lock:
            return self._later[0][0] if self._later else None

    def close(self) -> None:
        self.store.close()

    def _account(self) -> dict[str, Any]:
        with self.store.transaction():
            for account in self.store.account:
                return account
            account = {"id": self.ids.new("acct"), "created": self.clock.seconds()}
            self.store.account.put(account["id"], account)
            return account


def _params(method: str, query: str, headers: Mapping[str, str], body: bytes) -> dict[str, Any]:
    """Parameters of the query, and of the body for POST; a query beside a body counts too, as with Stripe."""
    text = query
    if body and method != "GET":
        kind = headers.get("content-type", "application/x-www-form-urlencoded").partition(";")[0].strip().lower()
        if kind != "application/x-www-form-urlencoded":
            raise StripeError(
                400,
                "Invalid request (check that your POST content type is application/x-www-form-urlencoded). If you have "
                "any questions, we can help at https://support.stripe.com/.",
            )
        try:
            form = body.decode("utf-8")
        except UnicodeDecodeError as exc:
            raise StripeError(400, "Invalid UTF-8 in request.") from exc
        text = f"{query}&{form}" if query else form
    return form_decode(text)


def _key_of(headers: Mapping[str, str]) -> str | None:
    """The key of Bearer or Basic authentication."""
    scheme, _, value = headers.get("authorization", "").partition(" ")
    value = value.strip()
    if scheme.lower() == "bearer":
        return value or None
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).decode().partition(":")[0] or None
        except (binascii.Error, UnicodeDecodeError):
            return None
    return None


def _cut(fault: Fault) -> Response:
    if fault.effect == "reset":
        return Response(status=0, cut="reset")
    return Response(status=0, cut="hang", hold=fault.seconds)
