"""A TCP proxy before PostgreSQL that is slow, falls silent, cuts, or loses the answer to a COMMIT."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Final

# The message that names the backend: its type, its length, the backend's number, the key to cancel its work.
_BACKEND_KEY: Final = re.compile(rb"(K\0\0\0\x0c).{4}(.{4})", re.DOTALL)


class Proxy:
    """Passes bytes on between clients and a server until it is told otherwise.

    Attributes:
        port: where it listens, on 127.0.0.1.
        silent: while True it takes bytes and passes nothing on, in either direction.
        delay: seconds by which each answer comes late.
        lose_commits: how many answers to COMMIT are still to be lost; the connection is cut instead.
        lost: how many were.
    """

    def __init__(self, host: str, port: int, *, hide_backend: bool = False) -> None:
        """Make a proxy that does not listen yet.

        Args:
            host: of the server.
            port: of the server.
            hide_backend: tell clients of a backend that does not exist, as PgBouncer does.
        """
        self._server = (host, port)
        self._hide_backend = hide_backend
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self._all: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self.port: int = self._listener.getsockname()[1]
        self.silent = False
        self.delay = 0.0
        self.lose_commits = 0
        self.lost = 0

    def __enter__(self) -> Proxy:
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self.cut()
        for thread in self._threads:
            thread.join(timeout=5)
        for one in (self._listener, *self._all):
            one.close()

    def cut(self) -> None:
        """End every connection that passes through."""
        with self._lock:
            sockets, self._open = self._open, []
        for one in sockets:
            _shut(one)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._all.append(client)
            try:
                server = socket.create_connection(self._server)
            except OSError:
                # The server is down; so are we, for this client.
                _shut(client)
                continue
            self._all.append(server)
            with self._lock:
                self._open += [client, server]
            committing = threading.Event()
            self._start(self._to_server, client, server, committing)
            self._start(self._to_client, server, client, committing)

    def _start(self, function: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=function, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _to_server(self, client: socket.socket, server: socket.socket, committing: threading.Event) -> None:
        while data := _read(client):
            if self.silent:
                continue
            # A simple query: its type, four bytes of length, the text.
            if self.lose_commits and data[5:11] == b"COMMIT":
                committing.set()
            if not _write(server, data):
                break
        _shut(client, server)

    def _to_client(self, server: socket.socket, client: socket.socket, committing: threading.Event) -> None:
        while data := _read(server):
            if committing.is_set():
                # The server has answered, so the commit is over; nobody shall hear of it.
                self.lose_commits -= 1
                self.lost += 1
                break
            if self._hide_backend:
                data = _BACKEND_KEY.sub(lambda found: found[1] + b"\0\0\0\7" + found[2], data)
            if self.delay:
                time.sleep(self.delay)
            if not self.silent and not _write(client, data):
                break
        _shut(client, server)


def _read(one: socket.socket) -> bytes:
    try:
        return one.recv(65536)
    except OSError:
        return b""


def _write(one: socket.socket, data: bytes) -> bool:
    try:
        one.sendall(data)
    except OSError:
        return False
    return True


def _shut(*sockets: socket.socket) -> None:
    # Not close(): another thread may be reading.
    for one in sockets:
        with suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
