"""What ``make run`` keeps in ``.sandbox`` between two starts, and who may read it."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
import shlex
import subprocess
import tempfile
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final, TypedDict

from zenskar.sandbox import processes

READ_AT: Final = "ZENSKAR_SANDBOX_ENV"
"""Set by ``env`` beside its variables: their names and a digest of them, by which a later start knows its own."""


class Endpoints(TypedDict, total=False):
    """``endpoints.json``: where everything listens and how to log in; all values are strings."""

    web: str
    admin_user: str
    admin_password: str
    api_key: str
    authorization: str
    database_url: str
    redis_url: str
    kafka_bootstrap_servers: str
    stripe_api_base: str
    stripe_api_key: str
    stripe_webhook_secret: str


class AlreadyRunning(Exception):
    """Another ``make run`` uses this folder."""


@dataclass
class SandboxFolder:
    """``.sandbox`` of one checkout, for its owner alone (0700): it holds passwords, keys and data."""

    path: Path
    _held: IO[str] | None = field(default=None, repr=False)

    @property
    def endpoints_file(self) -> Path:
        return self.path / "endpoints.json"

    @property
    def shell_file(self) -> Path:
        return self.path / "env"

    @property
    def stripe_state(self) -> Path:
        return self.path / "stripe.json"

    @property
    def redis(self) -> Path:
        return self.path / "redis"

    def log(self, name: str) -> Path:
        return self.path / "logs" / f"{name}.log"

    def open(self) -> None:
        """Make the folder and lock it for this process; the lock goes with the process, however it ends.

        Raises:
            AlreadyRunning: another process holds it; with its process id and where its web listens.
        """
        self.path.mkdir(mode=0o700, exist_ok=True)
        (self.path / "logs").mkdir(exist_ok=True)
        held = (self.path / "lock").open("a+")
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            held.seek(0)
            owner = held.read().strip() or "unknown"
            held.close()
            where = self.read_endpoints().get("web", "")
            raise AlreadyRunning(
                f"It runs already, as process {owner}{f', at {where}' if where else ''}. "
                f"Stop it with Ctrl-C in its terminal, or: kill {owner}"
            ) from exc
        held.truncate(0)
        held.write(f"{os.getpid()}\n")
        held.flush()
        self._held = held

    def close(self) -> None:
        if self._held is not None:
            self._held.close()
            self._held = None

    def fresh_logs(self) -> None:
        """Keep the logs of the last start as ``*.log.1``, and begin new ones."""
        for log in (self.path / "logs").glob("*.log"):
            log.replace(log.with_name(log.name + ".1"))

    def read_endpoints(self) -> Endpoints:
        try:
            document: Endpoints = json.loads(self.endpoints_file.read_text())
        except (OSError, ValueError):
            return {}
        return document

    def write_endpoints(self, endpoints: Mapping[str, object]) -> None:
        _write_private(self.endpoints_file, json.dumps(endpoints, indent=2) + "\n")

    def write_shell(self, variables: Mapping[str, str]) -> None:
        """Write ``env``, which a shell reads (``. .sandbox/env``) to run commands with what our processes run with."""
        marked = {**variables, READ_AT: f"{','.join(sorted(variables))}:{_digest(variables)}"}
        lines = (f"export {name}={shlex.quote(value)}\n" for name, value in sorted(marked.items()))
        _write_private(self.shell_file, "".join(lines))

    @staticmethod
    def forget_shell(environment: MutableMapping[str, str]) -> None:
        """Take out what a shell read from ``env``: it leads to servers of an earlier start, which are gone.

        Only when all of it is as it was read: who has set one of the variables since then means what they say.
        """
        names, _, digest = environment.get(READ_AT, "").partition(":")
        read = {name: environment[name] for name in names.split(",") if name in environment}
        if digest and _digest(read) == digest:
            for name in (*read, READ_AT):
                del environment[name]

    def secret(self, name: str, *, prefix: str = "") -> str:
        """A random secret of this checkout, the same at every start.

        Args:
            name: its file in the folder.
            prefix: what it begins with.
        """
        file = self.path / name
        if not file.exists():
            _write_private(file, prefix + secrets.token_hex(24))
        return file.read_text()

    def postgres_data(self) -> Path:
        """The data folder of PostgreSQL: in here, or, when we are root and ``nobody`` cannot come here, elsewhere.

        PostgreSQL does not run as root, so it runs as ``nobody``, who cannot pass through a folder such as root's
        home. Then the data lies in a folder of its own in /var/tmp, and ``data-folder`` here says where.
        """
        pointer = self.path / "data-folder"
        if pointer.exists() and (kept := Path(pointer.read_text().strip())).is_dir():
            return kept / "postgres"
        here = self.path / "postgres"
        if os.geteuid() != 0 or self._reachable(here):
            return here
        folder = Path(tempfile.mkdtemp(prefix="zenskar-", dir="/var/tmp"))
        folder.chmod(0o711)
        _write_private(pointer, str(folder))
        return folder / "postgres"

    def _reachable(self, data: Path) -> bool:
        """Whether ``nobody`` gets as far as the parent of the data folder; it needs no more than to pass through."""
        self.path.chmod(0o711)
        probe = self.path / "probe"
        probe.mkdir(exist_ok=True)
        probe.chmod(0o755)
        answer = subprocess.run(
            ["/bin/sh", "-c", 'cd "$1"', "sh", str(probe)],
            capture_output=True,
            check=False,
            cwd="/",
            **processes.unprivileged(),
        )
        probe.rmdir()
        return answer.returncode == 0


def _digest(variables: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps(dict(variables), sort_keys=True).encode()).hexdigest()[:32]


def _write_private(file: Path, text: str) -> None:
    """Write a file that is readable by its owner alone from its first moment, and is never seen half-written."""
    staging = file.with_name(file.name + ".new")
    staging.unlink(missing_ok=True)
    descriptor = os.open(staging, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as output:
        output.write(text)
    staging.replace(file)
