"""``sync_due_once``: take what is due, by class and then by age, and synchronise it with a few threads.

Threads, because a sync is nearly all waiting for the other side. They live as long as one call: a quiet system has
none, and no database connection outlives its use. A thread takes one row at a time, so an interactive change waits
for one call of one thread at most, however many bulk rows are due.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count as counter
from typing import Final

from django.db import connections

from customers.integrations import Integration, integrations
from customers.models import Priority
from customers.sync.conf import SyncSettings, sync_settings
from customers.sync.engine import sync_leased
from customers.sync.lease import Lease, lease_claim
from customers.sync.ratelimit import Gate

_BUDGET: Final = 5.0
# Shared by the threads of a process; the claim of each is the next turn.
_turns: Final = counter()


def sync_due_once(*, budget: float = _BUDGET) -> int:
    """Synchronise what is due now.

    Args:
        budget: seconds after which no further row is taken.

    Returns:
        Rows that were looked at; 0 when nothing was due.
    """
    config = sync_settings()
    ends, count = time.monotonic() + budget, 0
    while first := _claim(config, config.concurrency):
        if len(first) == 1:
            _synchronise(first[0])
            count += 1
        else:
            with ThreadPoolExecutor(max_workers=len(first), thread_name_prefix="sync") as pool:
                count += sum(pool.map(lambda lease: _in_thread(lambda: _work_through(lease, config, ends)), first))
        if time.monotonic() >= ends:
            break
    return count


def _in_thread(function: Callable[[], int]) -> int:
    try:
        return function()
    finally:
        connections.close_all()


def _work_through(lease: Lease, config: SyncSettings, ends: float) -> int:
    """This row, then one due row after the other while there is time."""
    count = 0
    following = [lease]
    while following:
        _synchronise(following[0])
        count += 1
        following = _claim(config, 1) if time.monotonic() < ends else []
    return count


def _synchronise(lease: Lease) -> None:
    sync_leased(lease)


def _claim(config: SyncSettings, limit: int) -> list[Lease]:
    """Up to ``limit`` due rows: of each class of every integration that is open, before the next class.

    Of ten claims two look at webhooks first and one at bulk work, so that people who never rest starve neither.
    """
    taken: list[Lease] = []
    open_ones = [integration for integration in integrations().values() if _open(integration)]
    for priority in _classes(next(_turns)):
        for integration in open_ones:
            if len(taken) < limit:
                taken += lease_claim(
                    integration=integration.name,
                    priority=priority,
                    limit=limit - len(taken),
                    seconds=config.lease,
                )
    return taken


def _open(integration: Integration) -> bool:
    # While an account is closed its rows stay due and use up no attempts.
    return Gate(integration).closed_for() == 0


def _classes(turn: int) -> list[Priority]:
    first = {3: Priority.WEBHOOK, 7: Priority.WEBHOOK, 9: Priority.BULK}.get(turn % 10, Priority.INTERACTIVE)
    return sorted(Priority, key=lambda priority: (priority != first, priority))
