"""What a process does with its pools when it forks, and when it ends."""

from __future__ import annotations

import atexit
import os
from typing import TYPE_CHECKING

from django.db import connections

if TYPE_CHECKING:
    from dbresilience.postgresql.pool import Pool
    from dbresilience.postgresql.watcher import Watcher

# Pools of a parent process. Kept for the child's life: ending them would take locks that nobody will ever release.
_inherited: list[Pool] = []

_pools: dict[str, Pool] = {}
_watcher: Watcher | None = None


def install(pools: dict[str, Pool], watcher: Watcher) -> None:
    """Have these pools forgotten in every child, and closed when the process ends. Called once.

    Args:
        pools: the pools of the process by alias; the same dictionary for its life.
        watcher: looks at them; told to forget its thread in a child.
    """
    global _pools, _watcher
    _pools, _watcher = pools, watcher
    os.register_at_fork(after_in_child=_forget)
    atexit.register(_close)


def watch() -> None:
    """Have the loans of the pools looked at from now on."""
    if _watcher is not None:
        _watcher.start()


def _forget() -> None:
    """In the child: neither pool nor connection of the parent is used, closed or collected here.

    An inherited pool hangs, since the threads that serve it stayed behind; an inherited connection, used or closed
    properly, would speak in the middle of what the parent says.
    """
    for pool in _pools.values():
        pool.abandon()
        _inherited.append(pool)
    _pools.clear()
    if _watcher is not None:
        _watcher.forget()
    for wrapper in connections.all(initialized_only=True):
        forget = getattr(wrapper, "forget_connection", None)
        if forget is not None:
            forget()


def _close() -> None:
    # Before the interpreter takes its modules apart under the pool's threads.
    for pool in list(_pools.values()):
        if pool.owner == os.getpid():
            pool.close(timeout=1.0)
