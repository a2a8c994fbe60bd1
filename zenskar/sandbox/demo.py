"""Shows the main job once, over HTTP and the Kafka protocol alone, as a client, Stripe and a consumer see it."""

from __future__ import annotations

import base64
import json
import secrets
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, Consumer, KafkaException, Message, TopicPartition

from zenskar.sandbox.folder import Endpoints

T = TypeVar("T")

PATIENCE = 20.0
"""Seconds after which a step that did not happen is reported instead of waited for."""


class DemoFailed(Exception):
    """A step of the demonstration did not happen; the message says which and what was seen last."""


def demo_run(endpoints: Endpoints, *, topic: str, remembered: Path) -> str:
    """Create a customer here, see it in Stripe and Kafka; change it in Stripe, and see the change here.

    The customer of an earlier start is changed instead, as long as both sides still have it and agree.

    Args:
        endpoints: where everything listens, and the keys.
        topic: the whole name of the customers' topic.
        remembered: file with the id of the customer of an earlier start; written when one is created.

    Returns:
        one line with what happened and how long each step took.

    Raises:
        DemoFailed: a step did not happen within its time.
    """
    web, stripe = _Here(endpoints), _Stripe(endpoints)
    records = _Topic(endpoints["kafka_bootstrap_servers"], topic)
    try:
        known = _known(web, stripe, remembered)
        begun = time.monotonic()
        if known is None:
            email = f"ada.{secrets.token_hex(4)}@example.com"
            customer = web.create(
                {"name": "Ada Lovelace", "email": email, "phone": _phone(), "metadata": {"made_by": "make run"}}
            )
            remembered.write_text(str(customer["id"]))
        else:
            customer = web.change(known, {"phone": _phone()})
        remote, in_stripe = _timed(begun, "the customer in Stripe", lambda: _in_stripe(web, stripe, customer))
        message, in_kafka = _timed(begun, "its event in Kafka", lambda: records.record(str(customer["id"])))
    finally:
        records.close()

    phone = _phone()
    begun = time.monotonic()
    stripe.change(str(remote["id"]), {"phone": phone})
    _, here = _timed(begun, "the change of Stripe here", lambda: web.read(str(customer["id"])).get("phone") == phone)
    kafka = f"{message.topic()}[{message.partition()}]@{message.offset()}"
    which = "customer" if known is None else "customer of the first start, changed"
    return (
        f"{which} → Stripe {remote['id']} in {in_stripe:.1f} s → Kafka {kafka} in {in_kafka:.1f} s "
        f"→ changed in Stripe → here in {here:.1f} s"
    )


def _phone() -> str:
    return f"+49 30 {secrets.randbelow(900000) + 100000}"


def _known(web: _Here, stripe: _Stripe, remembered: Path) -> str | None:
    """The id of the customer of an earlier start; None when there is none, or it was put to other uses meanwhile."""
    if not remembered.exists():
        return None
    try:
        customer = web.read(remembered.read_text().strip())
        state = customer["integrations"]["stripe"]
        agreed = customer["deleted_at"] is None and state["status"] == "in_sync"
        return str(customer["id"]) if agreed and not stripe.read(state["remote_id"]).get("deleted") else None
    except DemoFailed:
        return None


def _in_stripe(web: _Here, stripe: _Stripe, customer: dict[str, Any]) -> dict[str, Any] | None:
    """The customer in Stripe, once it is there as it is here; Stripe is asked only when ours says so."""
    state = web.read(str(customer["id"]))["integrations"]["stripe"]
    if state["status"] != "in_sync":
        return None
    remote = stripe.read(state["remote_id"])
    return remote if remote.get("phone") == customer["phone"] else None


class _Here:
    """Our own API, as a client with the key sees it."""

    def __init__(self, endpoints: Endpoints) -> None:
        self._base = endpoints["web"].rstrip("/") + "/api/v1/customers/"
        self._headers = {"Authorization": endpoints["authorization"], "Content-Type": "application/json"}

    def create(self, body: dict[str, Any]) -> dict[str, Any]:
        return _call("POST", self._base, self._headers, json.dumps(body).encode())

    def change(self, customer_id: str, body: dict[str, Any]) -> dict[str, Any]:
        return _call("PATCH", self._base + customer_id, self._headers, json.dumps(body).encode())

    def read(self, customer_id: str) -> dict[str, Any]:
        return _call("GET", self._base + customer_id, self._headers)


class _Stripe:
    """Stripe's API, as Stripe's own dashboard would use it."""

    def __init__(self, endpoints: Endpoints) -> None:
        self._base = endpoints["stripe_api_base"].rstrip("/") + "/v1/customers"
        credentials = base64.b64encode(f"{endpoints['stripe_api_key']}:".encode()).decode()
        self._headers = {"Authorization": f"Basic {credentials}", "Content-Type": "application/x-www-form-urlencoded"}

    def read(self, remote_id: str) -> dict[str, Any]:
        return _call("GET", f"{self._base}/{remote_id}", self._headers)

    def change(self, remote_id: str, fields: dict[str, str]) -> None:
        _call("POST", f"{self._base}/{remote_id}", self._headers, urllib.parse.urlencode(fields).encode())


def _call(method: str, url: str, headers: dict[str, str], body: bytes | None = None) -> dict[str, Any]:
    request = urllib.request.Request(url, data=body, headers=headers, method=method)  # noqa: S310 - our own addresses
    try:
        with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310
            document: dict[str, Any] = json.load(response)
            return document
    except urllib.error.HTTPError as exc:
        raise DemoFailed(f"{method} {url} answered {exc.code}: {exc.read().decode(errors='replace')[:500]}") from exc
    except OSError as exc:
        raise DemoFailed(f"{method} {url}: {exc}") from exc


def _timed(begun: float, what: str, look: Callable[[], T | None]) -> tuple[T, float]:
    """Look again and again until there is something; with the seconds since ``begun``."""
    while True:
        seen = look()
        if seen:
            return seen, time.monotonic() - begun
        if time.monotonic() - begun > PATIENCE:
            raise DemoFailed(f"{what} was not seen within {PATIENCE:.0f} s")
        time.sleep(0.04)


class _Topic:
    """A consumer of one topic that hands over only what came after it was made."""

    def __init__(self, servers: str, topic: str) -> None:
        self._topic = topic
        self._consumer = Consumer({"bootstrap.servers": servers, "group.id": "zenskar-demo", "log_level": 0})
        self._assigned = False
        ends = {partition: self._end(partition) for partition in self._partitions()}
        if ends:
            self._assign(ends)

    def record(self, key: str) -> Message | None:
        """The next record when it has the key, else None."""
        if not self._assigned:
            # There was no such topic yet, so all that is in it came after.
            if not (partitions := self._partitions()):
                return None
            self._assign(dict.fromkeys(partitions, OFFSET_BEGINNING))
        message = self._consumer.poll(0.02)
        if message is None:
            return None
        if (error := message.error()) is not None:
            raise DemoFailed(f"Kafka: {error}")
        return message if (message.key() or b"").decode() == key else None

    def close(self) -> None:
        self._consumer.close()

    def _partitions(self) -> list[int]:
        try:
            metadata = self._consumer.list_topics(self._topic, timeout=10).topics[self._topic]
        except KafkaException as exc:
            raise DemoFailed(f"Kafka does not answer: {exc}") from exc
        return [] if metadata.error is not None else list(metadata.partitions)

    def _end(self, partition: int) -> int:
        offsets = self._consumer.get_watermark_offsets(TopicPartition(self._topic, partition), timeout=10)
        return OFFSET_END if offsets is None else int(offsets[1])

    def _assign(self, offsets: dict[int, int]) -> None:
        self._consumer.assign([TopicPartition(self._topic, partition, at) for partition, at in offsets.items()])
        self._assigned = True
