"""Processes that cost no start: forked from the test's own, with all that it set up and connections of their own."""

from __future__ import annotations

import os
import select
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable
from subprocess import CompletedProcess

LONGEST = 100.0
"""Seconds; a child that takes longer is killed, and fails the test."""


def child_run(work: Callable[[], object]) -> CompletedProcess[str]:
    """Do some work in a child that may die of it.

    Returns:
        How it ended, as ``subprocess.run`` tells it: 0, the status with which it exited, 1 when it raised, minus the
        signal that killed it; and what it wrote.
    """
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        reading, writing = os.pipe()
        with warnings.catch_warnings():
            # Python 3.12 warns of any fork in a process with threads. Who is forked here uses none of them, and the
            # product's own connections are made for that (see tests/dbresilience/test_forking.py).
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid == 0:
            os.dup2(out.fileno(), 1)
            os.dup2(errors.fileno(), 2)
            sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
            os._exit(_status(work))
        os.close(writing)
        # It is closed when the child is gone, however it went.
        hangs = not select.select([reading], [], [], LONGEST)[0]
        os.close(reading)
        if hangs:
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        out.seek(0)
        errors.seek(0)
        ended = CompletedProcess[str]([], os.waitstatus_to_exitcode(status), out.read(), errors.read())
    assert not hangs, f"The child hangs:\n{ended.stderr}"
    return ended


def _status(work: Callable[[], object]) -> int:
    status = 0
    try:
        work()
    except SystemExit as exc:
        if isinstance(exc.code, str):
            sys.stderr.write(f"{exc.code}\n")
        status = exc.code if isinstance(exc.code, int) else int(exc.code is not None)
    except BaseException:  # noqa: BLE001 - told to the parent
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return status
