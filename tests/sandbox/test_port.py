"""Where the web server of ``make run`` listens."""

from __future__ import annotations

import socket

import pytest

from zenskar.sandbox import supervisor
from zenskar.sandbox.processes import StartFailed, free_port

pytestmark = pytest.mark.feature("H7")


class Forbidden(socket.socket):
    """The socket of somebody who may not listen at any port."""

    def bind(self, address: object, /) -> None:
        raise PermissionError(13, "Permission denied")


def test_it_says_that_another_port_was_taken(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("PORT", raising=False)
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        held = holder.getsockname()[1]
        monkeypatch.setattr(supervisor, "DEFAULT_PORT", held)

        port = supervisor.web_port()

    assert port > held
    assert f"port {held} is taken: the web server takes {port}" in capsys.readouterr().out


def test_it_says_nothing_of_the_port_that_was_wished(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wished = free_port()
    monkeypatch.setenv("PORT", str(wished))

    assert supervisor.web_port() == wished
    assert capsys.readouterr().out == ""


def test_it_tells_a_port_that_is_not_allowed_from_one_that_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        monkeypatch.setenv("PORT", str(holder.getsockname()[1]))
        with pytest.raises(StartFailed, match=r"\(PORT\) is taken: choose another one$"):
            supervisor.web_port()

    monkeypatch.setattr(socket, "socket", Forbidden)
    monkeypatch.setenv("PORT", "80")
    with pytest.raises(StartFailed, match=r"^Port 80 \(PORT\) is not allowed"):
        supervisor.web_port()
