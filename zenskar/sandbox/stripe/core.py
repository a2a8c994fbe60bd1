"""The sandbox itself: takes a request, gives an answer, and remembers. Everything else hangs on it.

Mounted in process through ``handle``; the server puts it on a socket.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from zenskar.sandbox.stripe import control, dashboard, subscriptions
from zenskar.sandbox.stripe.authentication import KeyRing
from zenskar.sandbox.stripe.calls import Call, RequestLog, Response
from zenskar.sandbox.stripe.clock import Clock
from zenskar.sandbox.stripe.events import event_new
from zenskar.sandbox.stripe.faults import Faults
from zenskar.sandbox.stripe.gateway import Gateway
from zenskar.sandbox.stripe.idempotency import IdempotencyKeys
from zenskar.sandbox.stripe.ids import IdSource
from zenskar.sandbox.stripe.later import Later
from zenskar.sandbox.stripe.limits import RateLimiter
from zenskar.sandbox.stripe.searching import SearchIndex
from zenskar.sandbox.stripe.store import Store
from zenskar.sandbox.stripe.webhooks import RETRY_AFTER, Webhooks

# The version of stripe-python 16.1; what the account renders events with.
API_VERSION = "2026-10-28.endive"
DEFAULT_KEY = "sk_test_sandbox"
DEFAULT_SECRET = "whsec_sandbox"  # noqa: S105 - opens nothing but this sandbox
SEARCH_LAG = 60.0


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
        self.keys = KeyRing(api_key, restricted_keys)
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
        self.sleep = sleep
        self.later = Later(self.clock)
        self._gateway = Gateway(self)
        self.account_id, self.account_created = self._account()
        with self.store.transaction():
            self.idempotency.forget_old()
        for customer in self.store.customers:
            self.search.put(customer, at_once=True)

    def handle(self, method: str, path: str, headers: Mapping[str, str], body: bytes = b"") -> Response:
        """Answer one request. ``path`` may carry a query; header names in any case."""
        lowered = {name.lower(): value for name, value in headers.items()}
        if path.startswith("/v1/"):
            return self._gateway.handle(method, path, lowered, body)
        parts = urlsplit(path)
        return control.handle(self, method, unquote(parts.path), parts.query, lowered, body)

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

    def customers_fill(self, count: int, *, per_second: int = 0) -> int:
        """Make the account large at once: customers that no event tells of. Returns how many; see the dashboard."""
        return dashboard.customers_fill(self, count, per_second=per_second)

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

    def close(self) -> None:
        self.store.close()

    def _account(self) -> tuple[str, int]:
        """Id and creation time of the account, made at the first start."""
        with self.store.transaction():
            account = next(iter(self.store.account), None)
            if account is None:
                account = {"id": self.ids.new("acct"), "created": self.clock.seconds()}
                self.store.account.put(account["id"], account)
            return str(account["id"]), int(account["created"])
