"""What the pools of this process measure of themselves."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from dbresilience.postgresql.pool import Pool

_SAMPLES: Final = 2048

pools: Final[dict[str, Pool]] = {}
"""The pools of this process by alias; the backend puts them in."""


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Milliseconds, over the last 2048 measurements; None when there was none.

    Attributes:
        count: all measurements since the pool opened.
    """

    count: int
    p50: float | None
    p95: float | None
    p99: float | None
    slowest: float | None


@dataclass(frozen=True, slots=True)
class PoolStats:
    """One pool at one instant, and what it counted since it opened.

    Attributes:
        alias: of the database.
        pid: of the process.
        size: connections that are kept.
        max_overflow: how many may come beyond.
        open: connections there are, those being made included.
        idle: of them, free.
        borrowed: of them, in use.
        overflow: how many there are beyond ``size``.
        waiting: threads that wait for one.
        utilisation: borrowed as a share of ``size + max_overflow``, 0 to 1.
        longest_hold: seconds that the longest loan lasts by now; None when there is none.
        requests: how often a connection was asked for.
        queued: of them, had to wait.
        timeouts: of them, got none in time.
        connects: attempts to connect.
        connect_errors: of them, failed.
        last_connect_error: class of the latest failure; empty when there was none.
        dead_found: dead connections found before anybody got them.
        sweeps: how often a dead one made the pool look through the rest.
        drains: how often a silent one made the pool replace the rest.
        recycled: connections replaced for their age.
        overflow_closed: connections of the overflow closed after use.
        long_holds: loans reported for their length.
        lost: connections whose holder vanished without returning them; made good.
        reclaimed: connections taken away from their holder.
        refreshed: sessions exchanged for their age.
        answer_timeouts: exchanges given up because the server did not answer.
        rollback_failures: rollbacks that failed and cost the connection.
        wait: time until a connection was had, or until waiting for one was given up.
        hold: time until it came back.
    """

    alias: str
    pid: int
    size: int
    max_overflow: int
    open: int
    idle: int
    borrowed: int
    overflow: int
    waiting: int
    utilisation: float
    longest_hold: float | None
    requests: int
    queued: int
    timeouts: int
    connects: int
    connect_errors: int
    last_connect_error: str
    dead_found: int
    sweeps: int
    drains: int
    recycled: int
    overflow_closed: int
    long_holds: int
    lost: int
    reclaimed: int
    refreshed: int
    answer_timeouts: int
    rollback_failures: int
    wait: Percentiles
    hold: Percentiles


class Reservoir:
    """The latest durations, in seconds; adding one costs an append."""

    __slots__ = ("_samples", "add", "counted")

    def __init__(self) -> None:
        self._samples: deque[float] = deque(maxlen=_SAMPLES)
        self.add = self._samples.append
        self.counted = 0

    def percentiles(self, count: int) -> Percentiles:
        """The latest ones, sorted; ``count`` is how many there were in all."""
        # A deque that others append to cannot be iterated over; copying it is one step for them.
        values = sorted(self._samples.copy())
        if not values:
            return Percentiles(count, None, None, None, None)
        return Percentiles(count, *(_at(values, share) for share in (0.50, 0.95, 0.99, 1.0)))


def open_pools() -> list[Pool]:
    """The pools of this process that are open, by alias."""
    return [pool for _, pool in sorted(pools.items()) if not pool.closed]


def pool_stats() -> list[PoolStats]:
    """The figures of every open pool of this process, by alias."""
    return [pool.stats() for pool in open_pools()]


def _at(values: list[float], share: float) -> float:
    return round(values[min(len(values) - 1, int(len(values) * share))] * 1000, 3)
