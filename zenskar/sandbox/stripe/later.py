"""Work that is due when the clock says so."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable

from zenskar.sandbox.stripe.clock import Clock


class Later:
    """Functions by the moment at which they are to run. ``wake`` is set when there is something new to wait for."""

    def __init__(self, clock: Clock) -> None:
        self.wake = threading.Event()
        self._clock = clock
        self._lock = threading.Lock()
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        clock.on_advance(self.run_due)

    def add(self, seconds: float, function: Callable[[], None]) -> None:
        """Run ``function`` when the clock is ``seconds`` further."""
        with self._lock:
            self._count += 1
            heapq.heappush(self._heap, (self._clock.now() + seconds, self._count, function))
        self.wake.set()

    def run_due(self) -> int:
        """Run what became due. The server's thread calls it, and so does ``clock.advance``."""
        done = 0
        while True:
            with self._lock:
                if not self._heap or self._heap[0][0] > self._clock.now():
                    return done
                _, _, function = heapq.heappop(self._heap)
            function()
            done += 1

    def next_due(self) -> float | None:
        with self._lock:
            return self._heap[0][0] if self._heap else None
