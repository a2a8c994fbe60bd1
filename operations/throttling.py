"""How many requests one caller may send a minute."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import redis
from django.http import HttpRequest, HttpResponse
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

from operations.conf import access_settings
from operations.models import ApiKey
from operations.redis_connection import patient_redis

if TYPE_CHECKING:
    # Imports this module itself, through the framework's settings.
    from rest_framework.views import APIView

WINDOW: Final = 60


@dataclass(frozen=True, slots=True)
class Allowance:
    """What one caller has left in the window under way.

    Attributes:
        limit: requests a window.
        used: requests so far, this one included.
        resets_in: seconds until the next window.
    """

    limit: int
    used: int
    resets_in: int

    @property
    def is_spent(self) -> bool:
        return self.used > self.limit

    def headers(self) -> dict[str, str]:
        """The headers of the IETF draft "RateLimit header fields for HTTP"."""
        left = max(0, self.limit - self.used)
        return {
            "RateLimit-Policy": f'"default";q={self.limit};w={WINDOW}',
            "RateLimit": f'"default";r={left};t={self.resets_in}',
        }


class PerKeyThrottle(BaseThrottle):
    """Counts the requests of each API key, and of each member of staff, in windows of a minute.

    The count is in Redis, one round trip a request. While Redis is away nobody is throttled: the limit protects against
    a runaway client, and refusing everybody would be the greater harm.
    """

    def __init__(self) -> None:
        self._allowance: Allowance | None = None

    def allow_request(self, request: Request, view: APIView) -> bool:
        limit = _limit_of(request)
        if limit == 0:
            return True
        now = time.time()
        window = int(now // WINDOW)
        name = f"zenskar:throttle:{_identity(request)}:{window}"
        used = patient_redis().attempt(lambda client: _count(client, name), otherwise=None)
        if used is None:
            return True
        self._allowance = Allowance(limit, used, max(1, int((window + 1) * WINDOW - now)))
        request._request.allowance = self._allowance  # type: ignore[attr-defined]
        return not self._allowance.is_spent

    def wait(self) -> float | None:
        return None if self._allowance is None else self._allowance.resets_in


class RateLimitMiddleware:
    """Tells each caller what it has left."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        allowance: Allowance | None = getattr(request, "allowance", None)
        if allowance is not None:
            for name, value in allowance.headers().items():
                response[name] = value
        return response


def _count(client: redis.Redis, name: str) -> int | None:
    used = int(client.incr(name))
    # Said again now and then, should the one who said it first have died between the two.
    if used == 1 or used % 1000 == 0:
        client.expire(name, 2 * WINDOW)
    return used


def _limit_of(request: Request) -> int:
    if isinstance(request.auth, ApiKey) and request.auth.rate_limit is not None:
        return request.auth.rate_limit
    return access_settings().rate_limit


def _identity(request: Request) -> str:
    if isinstance(request.auth, ApiKey):
        return f"key:{request.auth.prefix}"
    return f"user:{request.user.pk}"
