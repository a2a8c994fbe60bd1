"""Transactions that fell victim to a deadlock run again one at a time, or they keep killing each other."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

LONGEST: Final = 10.0
"""Seconds that a transaction waits for its turn at most; then it runs without."""

# Reentrant: the same thread may run a transaction on another database within its turn.
_turn = threading.RLock()


@contextmanager
def turn_taken(timeout: float | None) -> Iterator[None]:
    """Run the block while no other one in this process runs.

    Who waits holds no lock of the database, so waiting here can close no circle; and the wait has an end, so nothing
    depends on it: it only makes the next deadlock less likely. It is per process, since that is where most of the
    contenders are and a lock in the database would make strangers wait.

    Args:
        timeout: seconds; None, or more than ``LONGEST``, takes ``LONGEST``.
    """
    lock = _turn
    is_mine = lock.acquire(timeout=LONGEST if timeout is None else min(timeout, LONGEST))
    try:
        yield
    finally:
        if is_mine:
            lock.release()


def _forget() -> None:
    # A thread that held it stayed behind in the parent.
    global _turn
    _turn = threading.RLock()


os.register_at_fork(after_in_child=_forget)
