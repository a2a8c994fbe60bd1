"""What each process says of its connection pools, for all to see."""

from __future__ import annotations

import dataclasses
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from psycopg.types.json import Jsonb

from dbresilience.monitor.connection import MonitorConnection
from dbresilience.work import process_role

PoolReader = Callable[[], Sequence[Any]]

# Serves process_report: one row a process.
REPORT_SQL: Final = """
INSERT INTO dbresilience_processreport (process, role, reported_at, pools)
VALUES (%(process)s, %(role)s, clock_timestamp(), %(pools)s)
ON CONFLICT (process) DO UPDATE SET reported_at = excluded.reported_at, pools = excluded.pools
"""

_started_at: Final = int(time.time())
_readers: Final[list[PoolReader]] = []


def register_pools(reader: PoolReader) -> None:
    """Name the function that returns this process's pool figures, as dataclasses or mappings."""
    if reader not in _readers:
        _readers.append(reader)


def pools_of_this_process() -> list[dict[str, Any]]:
    """This process's pool figures, fit for JSON."""
    found = [figures for reader in _readers for figures in reader()]
    return [dict(figures) if isinstance(figures, Mapping) else dataclasses.asdict(figures) for figures in found]


def process_name() -> str:
    """This process among all: host, number and time of start, since numbers come again."""
    return f"{socket.gethostname()}:{os.getpid()}:{_started_at}"


def process_report(connection: MonitorConnection) -> int:
    """Write what this process's pools look like; returns the number of rows, 0 when it has no pool."""
    pools = pools_of_this_process()
    if not pools:
        return 0
    report = {"process": process_name(), "role": process_role(), "pools": Jsonb(pools)}
    return connection.execute(REPORT_SQL, report).rowcount
