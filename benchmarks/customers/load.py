"""A load generator that costs the server next to no processor time: raw sockets, kept open, requests made up front."""

from __future__ import annotations

import hashlib
import hmac
import json
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from uuid import uuid4


@dataclass(frozen=True)
class Load:
    """What one run saw: answers a second, and seconds until the answer (median and 99th percentile)."""

    per_second: float
    p50: float
    p99: float


def load(request: Callable[[], bytes], *, port: int, status: int, connections: int, seconds: float) -> Load:
    """Send what ``request`` makes over ``connections`` connections for ``seconds``; every answer has this status."""
    durations: list[list[float]] = [[] for _ in range(connections)]
    errors: list[BaseException] = []
    start = threading.Barrier(connections + 1)

    def client(mine: list[float]) -> None:
        try:
            with socket.create_connection(("127.0.0.1", port)) as peer:
                peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                start.wait()
                end = time.monotonic() + seconds
                while (began := time.monotonic()) < end:
                    peer.sendall(request())
                    _expect(peer, b"HTTP/1.1 %d" % status)
                    mine.append(time.monotonic() - began)
        except BaseException as exc:  # noqa: BLE001 - raised by the caller
            errors.append(exc)

    threads = [threading.Thread(target=client, args=(mine,)) for mine in durations]
    for thread in threads:
        thread.start()
    start.wait()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    every = sorted(duration for mine in durations for duration in mine)
    return Load(len(every) / seconds, every[len(every) // 2], every[len(every) * 99 // 100])


def create_request(port: int, path: str, authorization: str | None, key: str | None = None) -> bytes:
    """A POST that creates a customer of its own, with an idempotency key if one is given."""
    body = {
        "name": "John Doe",
        "email": f"{uuid4().hex}@example.com",
        "phone": "+49 228 123456",
        "address": {"line1": "Am Hof 1", "city": "Bonn", "country": "DE"},
        "metadata": {"plan": "gold", "source": "web"},
    }
    headers = {"Authorization": authorization, "Idempotency-Key": key}
    return _posted(port, path, json.dumps(body).encode(), {name: said for name, said in headers.items() if said})


def read_request(port: int, path: str, authorization: str) -> bytes:
    """A GET."""
    lines = [f"GET {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", f"Authorization: {authorization}"]
    return "\r\n".join([*lines, "", ""]).encode()


def webhook_request(port: int, path: str, secret: str) -> bytes:
    """A signed webhook with an id of its own, about a customer of its own."""
    number = uuid4().hex
    customer = {
        "id": f"cus_{number}",
        "object": "customer",
        "email": f"{number}@example.com",
        "name": "John Doe",
        "phone": None,
        "address": {"line1": "Am Hof 1", "city": "Bonn", "country": "DE"},
        "metadata": {"plan": "gold"},
        "livemode": False,
    }
    event = {
        "id": f"evt_{number}",
        "object": "event",
        "type": "customer.updated",
        "livemode": False,
        "created": int(time.time()),
        "data": {"object": customer, "previous_attributes": {"name": "John"}},
        "request": {"id": None, "idempotency_key": None},
    }
    body = json.dumps(event).encode()
    moment = int(time.time())
    digest = hmac.new(secret.encode(), f"{moment}.".encode() + body, hashlib.sha256).hexdigest()
    return _posted(port, path, body, {"Stripe-Signature": f"t={moment},v1={digest}"})


def _posted(port: int, path: str, body: bytes, headers: dict[str, str]) -> bytes:
    lines = [f"POST {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", "Content-Type: application/json"]
    lines += [f"Content-Length: {len(body)}", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body


def _expect(peer: socket.socket, line: bytes) -> None:
    data = b""
    while b"\r\n\r\n" not in data:
        data += _received(peer)
    head, _, body = data.partition(b"\r\n\r\n")
    if not head.startswith(line):
        raise RuntimeError(f"not {line!r}: {head[:200]!r} {body[:500]!r}")
    length = next(
        int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")
    )
    while len(body) < length:
        body += _received(peer)


def _received(peer: socket.socket) -> bytes:
    data = peer.recv(65536)
    if not data:
        raise RuntimeError("the server closed the connection")
    return data
