"""The web process as it runs in production, over sockets: what clients that never finish can do to it."""

from __future__ import annotations

import json
import os
import re
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.zenskar.impatient import ImpatientWorker
from zenskar.sandbox import processes

pytestmark = pytest.mark.feature("A16")

ROOT = Path(__file__).resolve().parent.parent.parent
THREADS = 8
HALF = b"POST /livez HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A real web process with few threads and little patience, which expects TLS in front, as it does by default."""
    port = processes.free_port()
    log = tmp_path_factory.mktemp("web") / "web.log"
    command = [sys.executable, "-m", "gunicorn", "-c", "zenskar/gunicorn_settings.py", "zenskar.wsgi"]
    command += ["--bind", f"127.0.0.1:{port}", "--workers", "1", "--threads", str(THREADS), "--graceful-timeout", "1"]
    command += ["--keep-alive", "300"]
    command += ["--worker-class", f"{ImpatientWorker.__module__}.{ImpatientWorker.__name__}"]
    environment = {**os.environ, "HTTPS": "true", "DJANGO_SETTINGS_MODULE": "zenskar.settings"}
    process = processes.start(command, log=log, env=environment, cwd=ROOT)
    processes.wait_for_port(process, port, name="web", log=log)
    yield port
    processes.stop(process, grace=5)
    assert "Traceback" not in log.read_text()


def connect(port: int, data: bytes = b"") -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port), timeout=60)
    client.sendall(data)
    return client


def everything(client: socket.socket) -> bytes:
    """What the server sends until it closes the connection."""
    received = b""
    try:
        while data := client.recv(65536):
            received += data
    except ConnectionResetError:
        pass
    return received


def get(port: int, path: str, *headers: str) -> bytes:
    lines = [f"GET {path} HTTP/1.1", "Host: localhost", "Connection: close", *headers, "", ""]
    with connect(port, "\r\n".join(lines).encode()) as client:
        return everything(client)


def test_it_outlives_clients_that_fall_silent_in_the_body(port: int) -> None:
    clients = 5 * THREADS

    with ExitStack() as stack:
        opened = [stack.enter_context(connect(port, HALF)) for _ in range(clients)]
        answer = get(port, "/livez")
        answers = [everything(client) for client in opened]

    assert answer.startswith(b"HTTP/1.1 200 ")
    assert [one.partition(b"\r\n")[0] for one in answers] == [b"HTTP/1.1 408 Request Timeout"] * clients


@pytest.mark.parametrize("begun", [b"G", HALF.partition(b"Content-Length")[0]])
def test_it_drops_clients_that_fall_silent_in_the_headers(port: int, begun: bytes) -> None:
    with ExitStack() as stack:
        opened = [stack.enter_context(connect(port, begun)) for _ in range(2 * THREADS)]
        answer = get(port, "/livez")
        received = [everything(client) for client in opened]

    assert answer.startswith(b"HTTP/1.1 200 ")
    assert set(received) == {b""}


def test_it_answers_at_once_beside_clients_that_say_nothing(port: int) -> None:
    with ExitStack() as stack:
        silent = [stack.enter_context(connect(port)) for _ in range(5 * THREADS)]
        answer = get(port, "/livez")
        # None of them had to be given up first.
        for client in silent:
            client.setblocking(False)
            with pytest.raises(BlockingIOError):
                client.recv(1)

    assert answer.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("begun", [HALF, b"GET /livez HTTP/1.1\r\nX-Slow: "])
def test_it_drops_a_client_that_sends_for_ever(port: int, begun: bytes) -> None:
    started, dropped = time.monotonic(), False

    with connect(port, begun) as client:
        client.settimeout(0.2)
        while not dropped and time.monotonic() - started < 60:
            try:
                client.sendall(b" ")
                dropped = not client.recv(65536)
            except TimeoutError:
                continue
            except (BrokenPipeError, ConnectionResetError):
                dropped = True

    assert dropped
    assert time.monotonic() - started > ImpatientWorker.request_limit - 0.5


def test_it_waits_for_no_client_that_keeps_its_side_open(port: int) -> None:
    request = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"

    with ExitStack() as stack:
        for _ in range(5 * THREADS):
            everything(stack.enter_context(connect(port, request)))
        begun = time.monotonic()
        answer = get(port, "/livez")
        seconds = time.monotonic() - begun

    assert answer.startswith(b"HTTP/1.1 200 ")
    # gunicorn's own main loop would wait two seconds for each of them, one after the other.
    assert seconds < 5 * THREADS


def test_it_takes_a_body_that_comes_in_pieces(port: int) -> None:
    with connect(port, HALF.replace(b"POST", b"GET")) as client:
        time.sleep(ImpatientWorker.silence / 2)
        client.sendall(b" " * 999 + b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answers = everything(client)

    assert re.findall(rb"HTTP/1.1 (\d+)", answers) == [b"200", b"200"]


def test_it_refuses_a_body_that_was_cut_off(port: int) -> None:
    with connect(port, HALF + b'"name": "half"}') as client:
        client.shutdown(socket.SHUT_WR)
        answer = everything(client)

    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b'"body_cut_off"' in answer


@pytest.mark.parametrize(
    "header", ["SCRIPT_NAME: /evil", "SCRIPT_NAME: /livez", "PATH_INFO: /admin/", "Script-Name: /x"]
)
def test_it_takes_no_path_from_a_header(port: int, header: str) -> None:
    answer = get(port, "/livez", header)

    assert answer.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "header",
    ["X-Forwarded-Proto: https", "X-Forwarded-Protocol: ssl", "X-Forwarded-Ssl: on", "X-Forwarded-Proto: http"],
)
def test_it_believes_nobody_that_a_request_came_over_tls(port: int, header: str) -> None:
    answer = get(port, "/admin/login/", header)

    assert answer.startswith(b"HTTP/1.1 301 ")
    assert b"Location: https://localhost/admin/login/" in answer


@pytest.mark.parametrize(
    ("request_bytes", "status", "code"),
    [
        (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 414, "address_too_long"),
        (b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 9000 + b"\r\n\r\n", 431, "headers_too_large"),
        (b"GET /livez HTTP/1.1\r\n" + b"X: x\r\n" * 30_000 + b"\r\n", 431, "headers_too_large"),
        (b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX: a\x00b\r\n\r\n", 400, "malformed_http"),
        (b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX\xff: a\r\n\r\n", 400, "malformed_http"),
        (b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX : a\r\n\r\n", 400, "malformed_http"),
        (b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX: a\r\n b\r\n\r\n", 400, "malformed_http"),
        (b"GET /livez HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n", 400, "malformed_http"),
        (b"GET /livez HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400, "malformed_http"),
        (b"POST /livez HTTP/1.1\r\nTransfer-Encoding: tea, chunked\r\n\r\n", 501, "unknown_transfer_coding"),
        (b"POST /livez HTTP/1.1\r\nHost: localhost\r\nExpect: tea\r\n\r\n", 417, "expectation_failed"),
        (b"nonsense\r\n\r\n", 400, "malformed_http"),
        (b"G<T /livez HTTP/1.1\r\n\r\n", 400, "malformed_http"),
        (b"GET /livez HTTP/9.1\r\n\r\n", 400, "malformed_http"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400, "malformed_http"),
    ],
)
def test_it_refuses_what_is_no_http_as_it_refuses_all_else(
    port: int, request_bytes: bytes, status: int, code: str
) -> None:
    with connect(port) as client:
        client.sendall(request_bytes)
        head, _, body = everything(client).partition(b"\r\n\r\n")

    document = json.loads(body)
    assert head.startswith(f"HTTP/1.1 {status} ".encode())
    assert b"Content-Type: application/problem+json\r\n" in head
    assert f"X-Correlation-ID: {document['correlation_id']}".encode() in head
    assert document.keys() == {"type", "title", "status", "detail", "code", "errors", "correlation_id"}
    assert (document["status"], document["code"]) == (status, code)
