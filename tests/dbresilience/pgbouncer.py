"""A PgBouncer in transaction mode before the tests' server."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

from zenskar.sandbox import processes

CONFIGURATION = """
[databases]
* = host={host} port={port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen}
unix_socket_dir =
auth_type = trust
auth_file = {users}
pool_mode = transaction
default_pool_size = {size}
max_client_conn = 500
server_lifetime = 3600
"""


class PgBouncer:
    """One process, which hands a few sessions of the server around among all of its clients.

    Args:
        folder: for its configuration and its log; readable by everybody.
        settings: of the database behind it, as Django knows them.
        size: sessions of the server at most.

    Attributes:
        port: where it listens, on 127.0.0.1.
        settings: as given.
    """

    def __init__(self, folder: Path, settings: dict[str, Any], *, size: int) -> None:
        self.settings = dict(settings)
        self.port = processes.free_port()
        self._log = folder / "pgbouncer.log"
        self._file = folder / "pgbouncer.ini"
        self._process: subprocess.Popen[bytes] | None = None
        users = folder / "users.txt"
        users.write_text('"{USER}" "{PASSWORD}"\n'.format(**settings))
        users.chmod(0o644)
        text = CONFIGURATION.format(
            host=settings["HOST"],
            port=settings["PORT"],
            users=users,
            listen=self.port,
            size=size,
        )
        self._file.write_text(text)
        self._file.chmod(0o644)

    def start(self) -> None:
        """Start it and wait until it listens.

        Raises:
            RuntimeError: it is not installed, or does not start.
        """
        program = shutil.which("pgbouncer", path="/usr/sbin:/usr/local/bin:/usr/bin:/opt/homebrew/bin")
        if program is None:
            raise RuntimeError("PgBouncer is not installed: apt-get install pgbouncer")
        self._process = processes.start([program, str(self._file)], log=self._log, as_nobody=True)
        processes.wait_for_port(self._process, self.port, name="PgBouncer", log=self._log)

    def stop(self) -> None:
        """End it at once, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
