"""PostgreSQL for the workers of pytest-xdist: a server each, with copies of tables that are made once.

A server of its own keeps a test from the transactions of tests that run beside it: they hold back what the log may
read, what retention may drop and what the statistics tell. The tables take five seconds to make; so whoever starts the
workers makes them, beside their collecting of tests, and each worker copies the data folder.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import socket
import subprocess
import sys
from pathlib import Path
from threading import Thread

import psycopg

from zenskar.sandbox import processes
from zenskar.sandbox.postgres import Postgres

ROOT = Path(__file__).resolve().parent.parent
FOLDER = "TEST_CLUSTERS_FOLDER"
"""The variable that tells workers where the data folder is."""
MIGRATED = "zenskar_migrated"
"""The database with all tables, in the cluster of each worker; missing where they could not be made."""


def cluster_begin(folder: Path) -> None:
    """Begin to make the data folder that workers copy."""
    os.environ[FOLDER] = str(folder)
    lock = (folder / "lock").open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    postgres = Postgres(data=folder / "migrated", port=processes.free_port(), durable=False)
    atexit.register(postgres.stop, mode="immediate")
    postgres.start()
    with psycopg.connect(postgres.url, autocommit=True) as session:
        session.execute("CREATE DATABASE zenskar_migrating")
    server, _, _ = postgres.url.rpartition("/")
    environment = {**os.environ, "DATABASE_URL": f"{server}/zenskar_migrating", "LOG_LEVEL": "WARNING"}
    environment["DJANGO_SETTINGS_MODULE"] = "zenskar.settings"
    command = [sys.executable, "-m", "django", "migrate", "--verbosity=0"]
    process = processes.start(command, log=folder / "migrate.log", env=environment, cwd=ROOT)

    def finish() -> None:
        # Where it fails the workers make their tables themselves, and show why that fails.
        with lock:
            is_migrated = process.wait() == 0
            if is_migrated:
                with psycopg.connect(postgres.url, autocommit=True) as session:
                    session.execute(f"ALTER DATABASE zenskar_migrating RENAME TO {MIGRATED}")
            postgres.stop()
            if is_migrated:
                (folder / "is-migrated").touch()

    Thread(target=finish, daemon=True).start()


class WorkersPostgres:
    """The server of one worker; its address is known before it is there.

    Args:
        worker: number of the worker.
    """

    def __init__(self, worker: int) -> None:
        self._folder = Path(os.environ[FOLDER])
        # Nobody else is given the port meanwhile.
        self._place = socket.socket()
        self._place.bind(("127.0.0.1", 0))
        port = self._place.getsockname()[1]
        self._postgres = Postgres(data=self._folder / f"postgres-{worker}", port=port, durable=False)
        self.url = self._postgres.url

    def start(self) -> None:
        """Copy the data folder when it is made, and start."""
        with (self._folder / "lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH)
        if (self._folder / "is-migrated").exists():
            subprocess.run(["cp", "-a", self._folder / "migrated", self._postgres.data], check=True)
        self._place.close()
        atexit.register(self._postgres.stop, mode="immediate")
        self._postgres.start()
