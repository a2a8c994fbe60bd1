"""A load generator that costs the server next to no processor time: raw sockets, kept open, requests made up front."""

from __future__ import annotations

import json
import socket
import threading
import time
from dataclasses import dataclass
from uuid import uuid4


@dataclass(frozen=True)
class Load:
    """What one run saw: answers a second, and seconds until the answer (median and 99th percentile)."""

    per_second: float
    p50: float
    p99: float


def load(port: int, path: str, *, authorization: str | None, connections: int, seconds: float) -> Load:
    """Create customers over ``connections`` connections for ``seconds``; every answer must be 201."""
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
                    peer.sendall(_request(port, path, authorization))
                    _expect_created(peer)
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


def _request(port: int, path: str, authorization: str | None) -> bytes:
    body = json.dumps(
        {
            "name": "John Doe",
            "email": f"{uuid4().hex}@example.com",
            "phone": "+49 228 123456",
            "address": {"line1": "Am Hof 1", "city": "Bonn", "country": "DE"},
            "metadata": {"plan": "gold", "source": "web"},
        }
    ).encode()
    lines = [f"POST {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", "Content-Type: application/json"]
    lines += [f"Content-Length: {len(body)}"]
    if authorization:
        lines.append(f"Authorization: {authorization}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def _expect_created(peer: socket.socket) -> None:
    data = b""
    while b"\r\n\r\n" not in data:
        data += _received(peer)
    head, _, body = data.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 201"):
        raise RuntimeError(f"not created: {head[:200]!r} {body[:500]!r}")
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
