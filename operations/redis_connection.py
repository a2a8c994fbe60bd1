"""Redis for what is nice to have: one client a process, short time-outs, and no waiting while Redis is away."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final, TypeVar

import redis
import structlog
from redis.backoff import NoBackoff
from redis.retry import Retry

from dbresilience.typed_settings import setting

T = TypeVar("T")

TIMEOUT: Final = 0.25
"""Seconds that one connection attempt or one answer may take."""
BACK_OFF: Final = 5.0
"""Seconds after a failure in which Redis is not asked at all."""

log = structlog.get_logger(__name__)


class PatientRedis:
    """Asks Redis, and does without it when it does not answer.

    After a failure nobody asks again for five seconds, then one thread does; so an outage costs one caller a quarter of
    a second now and then, and everybody else nothing. Nothing here may carry correctness.

    Args:
        url: as ``redis://host:6379/0``.
        clock: monotonic seconds.
    """

    def __init__(self, url: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = redis.Redis.from_url(
            url,
            socket_connect_timeout=TIMEOUT,
            socket_timeout=TIMEOUT,
            # The library's default retries with waits of its own.
            retry=Retry(NoBackoff(), 0),
            health_check_interval=0,
        )
        self._clock = clock
        self._lock = threading.Lock()
        self._closed_until: float | None = None

    def attempt(self, function: Callable[[redis.Redis], T], *, otherwise: T) -> T:
        """What ``function`` returns for the client, or ``otherwise`` when Redis is away."""
        if not self._may_ask():
            return otherwise
        try:
            result = function(self._client)
        except (redis.RedisError, OSError) as exc:
            self._note_failure(exc)
            return otherwise
        self._note_success()
        return result

    def _may_ask(self) -> bool:
        if self._closed_until is None:
            return True
        with self._lock:
            now = self._clock()
            if self._closed_until is not None and now < self._closed_until:
                return False
            # This thread probes; the others go on without until it is back.
            self._closed_until = now + BACK_OFF
            return True

    def _note_failure(self, exc: Exception) -> None:
        with self._lock:
            self._closed_until = self._clock() + BACK_OFF
        log.warning("redis_unavailable", error=type(exc).__name__)

    def _note_success(self) -> None:
        if self._closed_until is not None:
            with self._lock:
                self._closed_until = None
            log.info("redis_available")


_shared: dict[str, PatientRedis] = {}


def redis_url() -> str:
    """``REDIS_URL``, or that of a Redis on this machine."""
    return str(setting("REDIS_URL", "redis://localhost:6379/0"))


def patient_redis() -> PatientRedis:
    """The process's own, on ``REDIS_URL``."""
    url = redis_url()
    if url not in _shared:
        _shared[url] = PatientRedis(url)
    return _shared[url]
