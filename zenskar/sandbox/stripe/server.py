"""The sandbox on a socket: HTTP/1.1 with kept connections, faults done to the connection for real, webhooks posted."""

from __future__ import annotations

import contextlib
import ipaddress
import select
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

from zenskar.sandbox.stripe.calls import Response
from zenskar.sandbox.stripe.core import DEFAULT_KEY, DEFAULT_SECRET, StripeSandbox
from zenskar.sandbox.stripe.errors import SandboxError

LOOPBACK = "127.0.0.1"
MAX_BODY = 1_000_000
_POLL = 0.5


class ExposureRefused(SandboxError):
    """Bound to another address than the loopback, anybody on the network could use the sandbox: ask for it."""


class StripeSandboxServer:
    """Serves a sandbox from threads of its own.

    Arguments: ``port`` 0 takes a free one; ``host`` other than a loopback address is refused unless ``exposed`` is
    true, as a container needs it; ``sandbox`` to serve an existing one; the others, and ``options``, as StripeSandbox
    takes them.
    """

    def __init__(
        self,
        port: int = 0,
        api_key: str = DEFAULT_KEY,
        webhook_url: str | None = None,
        webhook_secret: str | Sequence[str] = DEFAULT_SECRET,
        state: Path | None = None,
        *,
        host: str = LOOPBACK,
        exposed: bool = False,
        sandbox: StripeSandbox | None = None,
        **options: Any,
    ) -> None:
        if not exposed and not _is_loopback(host):
            raise ExposureRefused(f"{host} is no loopback address; say exposed (--exposed) to listen there.")
        self.sandbox = sandbox or StripeSandbox(
            api_key=api_key, webhook_url=webhook_url, webhook_secret=webhook_secret, state=state, **options
        )
        self._owned = sandbox is None
        self.sandbox.exposed = exposed
        self._http = _Server((host, port), self.sandbox)
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []

    @property
    def port(self) -> int:
        return int(self._http.server_address[1])

    @property
    def url(self) -> str:
        host = str(self._http.server_address[0])
        return f"http://{LOOPBACK if host in ('0.0.0.0', '::') else host}:{self.port}"  # noqa: S104 - compared only

    def start(self) -> StripeSandboxServer:
        loops: list[Callable[[], None]] = [self._serve, self._run_due, self._deliver]
        for loop in loops:
            thread = threading.Thread(target=loop, name=f"stripe-sandbox{loop.__name__}", daemon=True)
            thread.start()
            self._threads.append(thread)
        return self

    def stop(self) -> None:
        """Stop listening, cut open connections, join the threads, close a sandbox of its own. Twice is harmless."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        self.sandbox.later.wake.set()
        self.sandbox.webhooks.wake.set()
        if self._threads:
            self._http.shutdown()
        self._http.cut_connections()
        for thread in self._threads:
            # A receiver that does not answer must not hold the end up: the delivery is kept, and sent again.
            thread.join(timeout=2)
        self._http.server_close()
        if self._owned:
            self.sandbox.close()

    def __enter__(self) -> StripeSandboxServer:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def _serve(self) -> None:
        self._http.serve_forever(poll_interval=0.05)

    def _run_due(self) -> None:
        later = self.sandbox.later
        while not self._stopping.is_set():
            self._sleep(later.wake, later.next_due())
            later.run_due()

    def _deliver(self) -> None:
        webhooks = self.sandbox.webhooks
        while not self._stopping.is_set():
            self._sleep(webhooks.wake, webhooks.next_due())
            if not self._stopping.is_set():
                webhooks.deliver_due()

    def _sleep(self, wake: threading.Event, due: float | None) -> None:
        wait = _POLL if due is None else min(_POLL, due - self.sandbox.clock.now())
        if wait > 0:
            wake.wait(wait)
        wake.clear()


class _Server(HTTPServer):
    """Threads per connection that can be cut and waited for."""

    request_queue_size = 128

    def __init__(self, address: tuple[str, int], sandbox: StripeSandbox) -> None:
        self.sandbox = sandbox
        self.stopping = threading.Event()
        self._open: dict[socket.socket, threading.Thread] = {}
        self._open_lock = threading.Lock()
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        thread = threading.Thread(target=self._serve_connection, args=(request, client_address), daemon=True)
        with self._open_lock:
            self._open[request] = thread
        thread.start()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A caller that hung up is no error of the sandbox; anything else is shown."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)

    def cut_connections(self) -> None:
        self.stopping.set()
        with self._open_lock:
            open_ones = list(self._open.items())
        for connection, _ in open_ones:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for _, thread in open_ones:
            thread.join(timeout=5)

    def _serve_connection(self, request: Any, client_address: Any) -> None:
        try:
            self.finish_request(request, client_address)
        except Exception:  # noqa: BLE001 - handle_error tells a hang-up from a fault of ours
            self.handle_error(request, client_address)
        finally:
            self.shutdown_request(request)
            with self._open_lock:
                self._open.pop(request, None)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "nginx"
    sys_version = ""
    disable_nagle_algorithm = True
    wbufsize = 64 * 1024
    server: _Server

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_DELETE(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def do_PATCH(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: Any) -> None:
        """The request log is the sandbox's own."""

    def _answer(self) -> None:
        body = self._body()
        if body is None:
            return
        headers = {name.lower(): value for name, value in self.headers.items()}
        response = self.server.sandbox.handle(self.command, self.path, headers, body)
        if response.cut is not None:
            self._cut(response)
            return
        self.send_response(response.status)
        for name, value in response.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(response.body)))
        self.end_headers()
        self.wfile.write(response.body)
        self.wfile.flush()

    def _body(self) -> bytes | None:
        length = self.headers.get("Content-Length", "0")
        if "Transfer-Encoding" in self.headers or not length.isdigit() or int(length) > MAX_BODY:
            self.close_connection = True
            self.send_error(413 if length.isdigit() and int(length) > MAX_BODY else 411)
            return None
        return self.rfile.read(int(length))

    def _cut(self, response: Response) -> None:
        self.close_connection = True
        if response.cut == "hang":
            self._hold(response.hold)
            return
        # Linger zero makes close() send a reset instead of an orderly end.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def _hold(self, seconds: float) -> None:
        """Keep the caller waiting until it hangs up, ``seconds`` passed or the server stops."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self.server.stopping.is_set():
            readable, _, _ = select.select([self.connection], [], [], 0.1)
            if readable and not self.connection.recv(1, socket.MSG_PEEK):
                return


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
