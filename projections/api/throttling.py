"""How many replays one caller may start a minute."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import redis
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

from operations.audit import actor_of
from operations.redis_connection import patient_redis
from projections.conf import projection_settings

if TYPE_CHECKING:
    from rest_framework.views import APIView

WINDOW: Final = 60


class ReplayThrottle(BaseThrottle):
    """Counts in Redis, in windows of a minute. While Redis is away nobody is refused: one replay of a projection at a
    time is a rule of the database."""

    def __init__(self) -> None:
        self._wait: float | None = None

    def allow_request(self, request: Request, view: APIView) -> bool:
        now = time.time()
        name = f"zenskar:replays:{actor_of(request)}:{int(now // WINDOW)}"
        used = patient_redis().attempt(lambda client: _count(client, name), otherwise=None)
        self._wait = WINDOW - now % WINDOW
        return used is None or used <= projection_settings().replays_per_minute

    def wait(self) -> float | None:
        return self._wait


def _count(client: redis.Redis, name: str) -> int | None:
    used = int(client.incr(name))
    client.expire(name, 2 * WINDOW)
    return used
