"""The rate limiter: off until switched on, so that only tests of limits meet it.

Source: docs.stripe.com/rate-limits (25 requests a second in a sandbox, 100 live, 25 for each endpoint; search 20).
"""

from __future__ import annotations

import threading
from collections import deque

from zenskar.sandbox.stripe.clock import Clock
from zenskar.sandbox.stripe.errors import StripeError, rate_limited

SANDBOX_PER_SECOND = 25
ENDPOINT_PER_SECOND = 25
SEARCH_PER_SECOND = 20


class RateLimiter:
    """Requests of the last second, for all endpoints together and for each."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._total: int | None = None
        self._each = ENDPOINT_PER_SECOND
        self._recent: dict[str, deque[float]] = {}

    def switch_on(self, per_second: int = SANDBOX_PER_SECOND, *, per_endpoint: int = ENDPOINT_PER_SECOND) -> None:
        with self._lock:
            self._total, self._each = per_second, per_endpoint
            self._recent.clear()

    def switch_off(self) -> None:
        with self._lock:
            self._total = None

    def check(self, route: str) -> StripeError | None:
        """Count one request of ``route``; the error when it is one too many."""
        with self._lock:
            if self._total is None:
                return None
            now = self._clock.now()
            each = min(self._each, SEARCH_PER_SECOND) if route.endswith("/search") else self._each
            for name, limit, reason in (("", self._total, "global-rate"), (route, each, "endpoint-rate")):
                recent = self._recent.setdefault(name, deque())
                while recent and recent[0] <= now - 1:
                    recent.popleft()
                if len(recent) >= limit:
                    return rate_limited(reason)
            self._recent[""].append(now)
            self._recent[route].append(now)
            return None
