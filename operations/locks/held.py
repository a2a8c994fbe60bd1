"""A lock for as long as a block runs, for long work of one process."""

from __future__ import annotations

import os
import random
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from django.db import Error

from dbresilience.transactions import run_in_transaction
from operations.locks.errors import LockTaken
from operations.locks.metrics import LOCK_TIMEOUTS, LOCK_WAIT
from operations.locks.rows import LockName, lock_check, lock_contended, lock_release, lock_renew, locks_take

_PAUSE = (0.02, 0.1)


@dataclass(frozen=True, slots=True)
class HeldLock:
    """A lock that this process took.

    Attributes:
        name: of the lock.
        token: its fencing token.
    """

    name: LockName
    token: int

    def check(self) -> None:
        """Begin a transaction whose writes the lock protects; see ``lock_check``."""
        lock_check(self.name, self.token)

    def renew(self, *, seconds: float) -> None:
        """Hold it for that long from now; see ``lock_renew``."""
        lock_renew(self.name, self.token, seconds=seconds)


@contextmanager
def lock_held(kind: str, key: str, *, seconds: float, wait: float = 0.0) -> Iterator[HeldLock]:
    """Hold a lock for the block.

    Args:
        kind: of what, as ``integration``.
        key: which one.
        seconds: after which others may take it, as when this process was killed; renewed by ``HeldLock.renew``.
        wait: seconds to wait for it at most.

    Raises:
        LockTaken: somebody else has it, and gave it back in that time neither.
    """
    name, holder = LockName(kind, key), f"{socket.gethostname()}:{os.getpid()}:{threading.get_ident()}"
    token = _taken(name, holder, seconds, wait)
    try:
        yield HeldLock(name, token)
    finally:
        # Without the database it runs out by itself.
        with suppress(Error):
            lock_release(name, token)


def _taken(name: LockName, holder: str, seconds: float, wait: float) -> int:
    begun = time.monotonic()
    is_counted = False
    while True:
        try:
            token = run_in_transaction(lambda: locks_take([name], holder=holder, seconds=seconds)[name])
        except LockTaken as taken:
            if not is_counted:
                lock_contended(taken)
                is_counted = True
            pause = random.uniform(*_PAUSE)  # noqa: S311
            if time.monotonic() + pause > begun + wait:
                LOCK_TIMEOUTS.labels(name.kind).inc()
                raise
            time.sleep(pause)
        else:
            LOCK_WAIT.labels(name.kind).observe(time.monotonic() - begun)
            return token
