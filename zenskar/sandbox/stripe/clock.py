"""The sandbox's clock: real time, shifted or frozen at will, so that 24 hours pass in a test at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Clock:
    """Seconds since the epoch.

    Arguments: ``frozen_at``, a moment at which time stands still until ``advance``; without it time runs as it does.
    """

    def __init__(self, frozen_at: float | None = None) -> None:
        self._lock = threading.Lock()
        self._frozen_at = frozen_at
        self._offset = 0.0
        self._listeners: list[Callable[[], object]] = []

    def now(self) -> float:
        with self._lock:
            return (time.time() if self._frozen_at is None else self._frozen_at) + self._offset

    def seconds(self) -> int:
        """The whole seconds that Stripe's timestamps count."""
        return int(self.now())

    def advance(self, seconds: float) -> float:
        """Move time forward by ``seconds`` (never back) and run what became due. Returns the new time."""
        if seconds < 0:
            raise ValueError("Time does not run backwards.")
        with self._lock:
            self._offset += seconds
        for listener in list(self._listeners):
            listener()
        return self.now()

    def on_advance(self, listener: Callable[[], object]) -> None:
        """Call ``listener`` after each ``advance``."""
        self._listeners.append(listener)
