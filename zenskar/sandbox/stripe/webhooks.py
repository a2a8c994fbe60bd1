"""Webhooks: events queued for each endpoint, signed when they leave, scripted to misbehave as the real ones do.

Order, number and time of deliveries promise nothing, as Stripe's do. Two ways out: ``deliver_due`` posts over HTTP
(the server's thread calls it); ``pending`` hands out signed messages for a test to post by hand.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from fnmatch import fnmatchcase
from itertools import islice
from typing import Any

from zenskar.sandbox.stripe.clock import Clock
from zenskar.sandbox.stripe.posting import post
from zenskar.sandbox.stripe.scripting import Script
from zenskar.sandbox.stripe.signing import SignedWebhook, webhook_sign
from zenskar.sandbox.stripe.store import Store

# Stripe retries for three days (three times in a sandbox); this begins sooner, for receivers that are being restarted.
RETRY_AFTER = (1.0, 5.0, 30.0, 120.0, 600.0, 3600.0, 10800.0)
BATCH = 50
BUILT_IN = "we_forwarded"
ORDERS = ("created", "reversed", "shuffled")


def built_in_endpoint(*, created: int) -> dict[str, Any]:
    """The endpoint that the sandbox is started with, which wants every event."""
    return {
        "id": BUILT_IN,
        "object": "webhook_endpoint",
        "api_version": None,
        "application": None,
        "created": created,
        "description": "The sandbox's own",
        "enabled_events": ["*"],
        "livemode": False,
        "metadata": {},
        "status": "enabled",
    }


class Webhooks:
    """Deliveries that wait, and how they leave.

    Arguments: ``store`` keeps endpoints and deliveries, under its lock; ``url`` and ``secrets`` describe the built-in
    endpoint. With a ``url`` it is an endpoint like any other, listed, changed and deleted by the API, so that who looks
    for one at that address finds it and makes no second. Without, its deliveries wait for ``pending``.
    """

    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        new_id: Callable[[str], str],
        url: str | None,
        secrets: Sequence[str],
        retry_after: Sequence[float] = RETRY_AFTER,
        seed: int = 0,
    ) -> None:
        self.secrets = list(secrets)
        self.retry_after = tuple(retry_after)
        self.wake = threading.Event()
        self._store = store
        self._clock = clock
        self._new_id = new_id
        self._random = random.Random(seed)  # noqa: S311 - repeatable on purpose
        self._scripts: list[Script] = []
        self._held = False
        self._posting: set[str] = set()
        self.url = url

    @property
    def url(self) -> str | None:
        """Where the built-in endpoint's events go; None: they wait for ``pending``."""
        return self._url

    @url.setter
    def url(self, url: str | None) -> None:
        self._url = url
        with self._store.transaction():
            if url is None:
                self._store.endpoints.remove(BUILT_IN)
                return
            known = self._store.endpoints.get(BUILT_IN)
            endpoint = known or built_in_endpoint(created=self._clock.seconds())
            self._store.endpoints.put(BUILT_IN, {**endpoint, "url": url, "secrets": list(self.secrets)})

    # What a test or the demonstration asks for.

    def script(self, effect: str, **arguments: Any) -> Script:
        """Let the next matching deliveries misbehave; see Script."""
        rule = Script(effect=effect, **arguments)
        with self._store.lock:
            self._scripts.append(rule)
        return rule

    def hold(self) -> None:
        """Keep all deliveries back until ``release``."""
        with self._store.lock:
            self._held = True

    def release(self, order: str = "created") -> None:
        """Let go what was held, in this order: one of ORDERS."""
        if order not in ORDERS:
            raise ValueError(f"order is one of {', '.join(ORDERS)}")
        with self._store.transaction():
            self._held = False
            waiting = list(self._store.deliveries)
            if order == "reversed":
                waiting.reverse()
            elif order == "shuffled":
                self._random.shuffle(waiting)
            for delivery in waiting:
                self._store.deliveries.remove(delivery["id"])
                fresh = {**delivery, "id": self._new_id("evt")}
                self._store.deliveries.put(fresh["id"], fresh)
        self.wake.set()

    def roll_secret(self, secret: str, *, keep_old: bool = True, endpoint_id: str = BUILT_IN) -> None:
        """Sign with ``secret`` from now on, and with the old ones beside it unless told otherwise."""
        with self._store.transaction():
            if endpoint_id == BUILT_IN:
                self.secrets = [secret, *(self.secrets if keep_old else [])]
                if (endpoint := self._store.endpoints.get(BUILT_IN)) is not None:
                    self._store.endpoints.put(BUILT_IN, {**endpoint, "secrets": list(self.secrets)})
                return
            endpoint = self._store.endpoints.get(endpoint_id)
            if endpoint is None:
                raise KeyError(endpoint_id)
            old = endpoint["secrets"] if keep_old else []
            self._store.endpoints.put(endpoint_id, {**endpoint, "secrets": [secret, *old]})

    def resend(self, event_id: str) -> None:
        """Queue an event again for every endpoint that wants it, as the dashboard's button does."""
        with self._store.transaction():
            event = self._store.events.get(event_id)
            if event is None:
                raise KeyError(event_id)
            self.queue(event)

    def reset(self) -> None:
        with self._store.transaction():
            self._scripts.clear()
            self._held = False
            self._store.deliveries.clear()

    def waiting(self) -> int:
        """Deliveries that have not left, due or not."""
        return len(self._store.deliveries)

    def posting(self) -> int:
        """Deliveries of a batch that are being posted and not settled yet."""
        with self._store.lock:
            return len(self._posting)

    def pending(self) -> list[SignedWebhook]:
        """Take all deliveries that are due, signed now, as if each had been posted and answered with 2xx."""
        with self._store.transaction():
            due = list(self._due())
            for delivery in due:
                self._settle(delivery, delivered=True)
            return [self._signed(delivery) for delivery in due]

    # What the sandbox and its delivery thread call.

    def queue(self, event: dict[str, Any]) -> int:
        """Queue ``event`` for each endpoint that wants it. Returns how many. Called inside a transaction."""
        wanting = [BUILT_IN] if self.url is None and self.secrets else []
        wanting += [
            endpoint["id"]
            for endpoint in self._store.endpoints
            if endpoint["status"] == "enabled"
            and any(fnmatchcase(event["type"], name) for name in endpoint["enabled_events"])
        ]
        for endpoint_id in wanting:
            self._queue_one(event, endpoint_id)
        if wanting:
            self.wake.set()
        return len(wanting)

    def deliver_due(self) -> int:
        """Post what is due, in batches; a failure is tried again later. Returns how many were posted.

        A delivery is forgotten after its answer, not before: a sandbox killed in between sends it again. What a reset
        took away meanwhile is not posted.
        """
        with self._store.lock:
            due = list(islice(self._due(http=True), BATCH))
            self._posting.update(delivery["id"] for delivery in due)
            batch = [(delivery, self._signed(delivery), self._url_of(delivery)) for delivery in due]
        for delivery, signed, url in batch:
            with self._store.lock:
                kept = delivery["id"] in self._store.deliveries
            delivered = kept and url is not None and post(url, signed.headers, signed.body)
            with self._store.transaction():
                self._posting.discard(delivery["id"])
                self._settle(delivery, delivered=delivered)
        return len(batch)

    def next_due(self) -> float | None:
        """When the next delivery over HTTP is due."""
        with self._store.lock:
            if self._held:
                return None
            now, first = self._clock.now(), None
            for delivery in self._store.deliveries.scan():
                if delivery["id"] in self._posting or self._url_of(delivery) is None:
                    continue
                if delivery["due"] <= now:
                    return now
                first = delivery["due"] if first is None else min(first, delivery["due"])
            return first

    def as_dict(self) -> dict[str, Any]:
        with self._store.lock:
            return {
                "url": self.url,
                "held": self._held,
                "waiting": len(self._store.deliveries),
                "scripts": [asdict(rule) for rule in self._scripts],
            }

    def _queue_one(self, event: dict[str, Any], endpoint_id: str) -> None:
        rule = self._rule_for(event)
        effect = rule.effect if rule is not None else None
        if effect == "drop":
            return
        due = self._clock.now() + (rule.seconds if rule is not None and effect == "delay" else 0.0)
        copies = rule.copies if rule is not None and effect == "duplicate" else 1
        for _ in range(copies):
            id = self._new_id("evt")
            self._store.deliveries.put(
                id,
                {
                    "id": id,
                    "event": event["id"],
                    "endpoint": endpoint_id,
                    "attempt": 0,
                    "due": due,
                    "effect": effect,
                },
            )

    def _rule_for(self, event: dict[str, Any]) -> Script | None:
        for rule in self._scripts:
            if fnmatchcase(event["type"], rule.type) and rule.times != 0:
                if rule.times is not None:
                    rule.times -= 1
                return rule
        return None

    def _due(self, *, http: bool = False) -> Iterator[dict[str, Any]]:
        now = self._clock.now()
        for delivery in () if self._held else self._store.deliveries.scan():
            due = delivery["due"] <= now and delivery["id"] not in self._posting
            if due and not (http and self._url_of(delivery) is None):
                yield delivery

    def _settle(self, delivery: dict[str, Any], *, delivered: bool) -> None:
        if delivery["id"] not in self._store.deliveries:
            # A reset came between.
            return
        if delivered or delivery["attempt"] >= len(self.retry_after):
            self._store.deliveries.remove(delivery["id"])
        else:
            wait = self.retry_after[delivery["attempt"]]
            again = {**delivery, "attempt": delivery["attempt"] + 1, "due": self._clock.now() + wait}
            self._store.deliveries.put(delivery["id"], again)
        if delivered:
            self._count(delivery["event"], -1)

    def _count(self, event_id: str, step: int) -> None:
        event = self._store.events.get(event_id)
        if event is not None:
            self._store.events.put(event_id, {**event, "pending_webhooks": max(0, event["pending_webhooks"] + step)})

    def _endpoint(self, delivery: dict[str, Any]) -> dict[str, Any]:
        if delivery["endpoint"] == BUILT_IN and self.url is None:
            return {"url": None, "secrets": self.secrets, "api_version": None}
        return self._store.endpoints.get(delivery["endpoint"]) or {"url": None, "secrets": [], "api_version": None}

    def _url_of(self, delivery: dict[str, Any]) -> str | None:
        url: str | None = self._endpoint(delivery)["url"]
        return url

    def _signed(self, delivery: dict[str, Any]) -> SignedWebhook:
        endpoint = self._endpoint(delivery)
        event = self._store.events.get(delivery["event"]) or {}
        if endpoint["api_version"] is not None:
            event = {**event, "api_version": endpoint["api_version"]}
        return webhook_sign(
            event, secrets=endpoint["secrets"], timestamp=self._clock.seconds(), effect=delivery["effect"]
        )
