"""Ends the processes and removes the folders of a parent that died without doing so itself.

Run as a script beside the parent, with the standard library alone, in a session of its own. It reads lines from its
standard input: ``watch GROUP SIGNAL``, ``forget GROUP``, ``remove FOLDER``. The input ends when the parent is gone,
however it went (SIGKILL too, which no handler and no ``atexit`` sees): then the groups get their signal, last one
first, and those that do not go within the grace get SIGKILL.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time

GRACE = 5.0
"""Seconds that all groups together have between their own signal and SIGKILL."""


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    groups: dict[int, int] = {}
    folders: list[str] = []
    for line in sys.stdin:
        word, _, rest = line.rstrip("\n").partition(" ")
        if word == "watch":
            group, ending = rest.split()
            groups[int(group)] = int(ending)
        elif word == "forget":
            groups.pop(int(rest), None)
        elif word == "remove":
            folders.append(rest)
    end_groups(groups)
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def end_groups(groups: dict[int, int], *, grace: float = GRACE) -> None:
    """Signal each process group, the last one first; SIGKILL what is left after ``grace`` seconds.

    Args:
        groups: process group → the signal that ends it cleanly.
        grace: seconds for all of them together.
    """
    remaining = [group for group in reversed(groups) if _signal(group, groups[group])]
    deadline = time.monotonic() + grace
    while remaining and time.monotonic() < deadline:
        time.sleep(0.02)
        remaining = [group for group in remaining if _signal(group, 0)]
    for group in remaining:
        _signal(group, signal.SIGKILL)


def _signal(group: int, number: int) -> bool:
    """Send a signal to a group; False when nobody is left in it."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


if __name__ == "__main__":
    main()
