"""What is sent to Stripe is what its library made ready, whatever the environment and the answer say."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests

from customers.stripe.http import PlainSession


class Server(ThreadingHTTPServer):
    """Redirects everything, sets a cookie, and remembers what came.

    Attributes:
        came: method, headers and body of each request.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.came: list[tuple[str, dict[str, str], bytes]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1/customers"


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.came.append((self.command, dict(self.headers), body))
        self.send_response(302)
        self.send_header("Location", "/elsewhere")
        self.send_header("Set-Cookie", "kept=yes")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is logged."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as found:
        thread = threading.Thread(target=found.serve_forever)
        thread.start()
        yield found
        found.shutdown()
        thread.join()


def post(session: PlainSession, server: Server) -> requests.Response:
    headers = {"Authorization": "Bearer sk_test_1", "Content-Type": "application/x-www-form-urlencoded"}
    return session.request("post", server.url, headers=headers, data="name=Ada", timeout=(5, 5), verify=True)


def test_it_sends_the_key_that_it_was_given(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\n")
    monkeypatch.setenv("NETRC", str(netrc))

    post(PlainSession(environment=True), server)

    ((method, headers, body),) = server.came
    assert (method, headers["Authorization"], body) == ("POST", "Bearer sk_test_1", b"name=Ada")


def test_it_follows_no_redirect_and_keeps_no_cookie(server: Server) -> None:
    session = PlainSession(environment=False)

    statuses = [post(session, server).status_code for _ in range(2)]

    assert statuses == [302, 302]
    assert [(method, "Cookie" in headers) for method, headers, _ in server.came] == [("POST", False)] * 2


def test_a_proxy_of_the_environment_counts_only_when_it_is_asked_for(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)

    assert post(PlainSession(environment=False), server).status_code == 302
    with pytest.raises(requests.exceptions.ProxyError):
        post(PlainSession(environment=True), server)
