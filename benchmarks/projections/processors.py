"""Processor time, which other work on the machine changes less than it changes the time that passes.

Of the standard library alone: the peer's script imports it, too. Linux only; elsewhere there is no figure.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path


def processor_seconds(postmaster: int) -> float | None:
    """Seconds that this process and a PostgreSQL server have computed so far; None where nobody counts them.

    Args:
        postmaster: the process that the server's sessions are children of.
    """
    if not Path("/proc/self/stat").exists():
        return None
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if int(stat.parent.name) == postmaster:
                # With its children that have ended.
                ticks += sum(map(int, fields[11:15]))
            elif int(fields[1]) == postmaster:
                ticks += sum(map(int, fields[11:13]))
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")
