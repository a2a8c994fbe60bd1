"""``/livez`` and ``/readyz``: what orchestrators ask."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime as dt
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import psycopg
import redis
import structlog
from asgiref.sync import async_to_sync
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from django.conf import settings
from django.db import connections
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.cache import never_cache
from health_check.base import HealthCheck
from health_check.exceptions import ServiceUnavailable
from redis.backoff import NoBackoff
from redis.retry import Retry

from operations import overview
from operations.overview import Figure
from operations.readiness import Component, components, register

TIMEOUT: Final = 2
REPORT_KEPT: Final = 1.0
"""Seconds for which one report answers everybody: strangers may ask, and must not be able to make work by asking."""

log = structlog.get_logger(__name__)


@never_cache
def livez(request: HttpRequest) -> HttpResponse:
    """The process answers. Depends on nothing: restarting it would bring back neither a database nor a broker."""
    return JsonResponse({"status": "alive"})


@never_cache
def readyz(request: HttpRequest) -> HttpResponse:
    """What the service needs and what of it is missing.

    Only the database makes this 503. Redis, Kafka or Stripe away is reported as ``degraded`` with 200: the API still
    takes customers then, their events wait in the log, and taking every instance out of the load balancer would turn a
    delay into an outage.
    """
    report = _reports.current()
    return JsonResponse(report, status=503 if report["status"] == "unavailable" else 200)


@dataclasses.dataclass
class ComponentCheck(HealthCheck):  # type: ignore[misc]
    """One registered component as a check of django-health-check."""

    component: Component
    timeout: dt.timedelta = dataclasses.field(default=dt.timedelta(seconds=2 * TIMEOUT + 1), repr=False)

    def run(self) -> None:
        try:
            reason = self.component.check()
        except Exception as exc:
            # Whatever it is, the component did not answer; what strangers read names no host and no error.
            log.warning("component_unavailable", component=self.component.name, error=type(exc).__name__)
            raise ServiceUnavailable("does not answer") from exc
        if reason:
            raise ServiceUnavailable(reason)


class _Reports:
    """The last report, made anew at most once a second and by one thread at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._report: dict[str, Any] = {}
        self._made_at = float("-inf")

    def current(self, *, kept: float = REPORT_KEPT) -> dict[str, Any]:
        """The report; one older than ``kept`` seconds is made anew."""
        with self._lock:
            if time.monotonic() - self._made_at >= kept:
                self._report = async_to_sync(_report)()
                self._made_at = time.monotonic()
            return self._report

    def forget(self) -> None:
        self._made_at = float("-inf")


_reports: Final = _Reports()
_executor: Final = ThreadPoolExecutor(max_workers=8, thread_name_prefix="readyz")


async def _report() -> dict[str, Any]:
    checks = [ComponentCheck(component) for component in components()]
    results = await asyncio.gather(*(check.get_result(_executor) for check in checks))
    found: dict[str, dict[str, Any]] = {}
    for check, result in zip(checks, results, strict=True):
        found[check.component.name] = {
            "status": "down" if result.error else "up",
            "critical": check.component.is_critical,
            "detail": result.error.message if result.error else "",
            "milliseconds": round(result.time_taken * 1000, 1),
        }
    missing = [name for name, entry in found.items() if entry["status"] == "down"]
    is_unavailable = any(found[name]["critical"] for name in missing)
    status = "unavailable" if is_unavailable else "degraded" if missing else "ready"
    return {"status": status, "missing": missing, "components": found}


def database_check() -> str:
    """Whether PostgreSQL answers, on a connection of its own, tried twice: one lost connection is not an outage."""
    try:
        _select_one()
    except psycopg.OperationalError:
        _select_one()
    return ""


def redis_check() -> str:
    """Whether Redis answers."""
    client = redis.Redis.from_url(
        settings.REDIS_URL, socket_connect_timeout=TIMEOUT, socket_timeout=TIMEOUT, retry=Retry(NoBackoff(), 0)
    )
    with client:
        client.ping()
    return ""


def kafka_check() -> str:
    """Whether a broker answers."""
    if not settings.KAFKA_BOOTSTRAP_SERVERS:
        return "not configured"
    try:
        _reach_any(settings.KAFKA_BOOTSTRAP_SERVERS)
        _kafka().list_topics(timeout=TIMEOUT)
    except KafkaException:
        return "does not answer"
    return ""


def component_figures(request: HttpRequest) -> list[Figure]:
    """The console's tile: each component and whether it answers, from the same report."""
    found = _reports.current(kept=15)["components"]
    return [
        Figure(label=name, value=entry["status"], tone="good" if entry["status"] == "up" else "bad")
        for name, entry in found.items()
    ]


def register_components() -> None:
    """Register what the project itself needs; apps add theirs."""
    overview.register("Components", component_figures, order=95)
    register("database", database_check, is_critical=True)
    register("redis", redis_check)
    register("kafka", kafka_check)


def _select_one() -> None:
    parameters = connections["default"].get_connection_params() | {"connect_timeout": TIMEOUT}
    with psycopg.connect(**parameters, autocommit=True) as connection:
        connection.execute("SET statement_timeout = '2s'")
        connection.execute("SELECT 1")


def _reach_any(servers: str) -> None:
    """Open and close a connection to the first server that takes one: a refusal is known at once, where librdkafka
    would go on trying until its time-out.

    Raises:
        OSError: none of them does; the last one's error.
    """
    *others, last = servers.split(",")
    for server in others:
        with contextlib.suppress(OSError):
            return _reach(server)
    return _reach(last)


def _reach(server: str) -> None:
    host, _, port = server.strip().rpartition("://")[2].rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), timeout=TIMEOUT / 2).close()


_kafka_clients: Final[dict[str, AdminClient]] = {}


def _kafka() -> AdminClient:
    """One client a process: each has threads of its own. Made on first use, so after any fork."""
    servers: str = settings.KAFKA_BOOTSTRAP_SERVERS
    if servers not in _kafka_clients:
        # Its own complaints would be a line a second; the report and one log line say it.
        options: dict[str, str | int | float | bool] = {
            "bootstrap.servers": servers,
            "log_level": 0,
            "reconnect.backoff.max.ms": 1000,
        }
        _kafka_clients[servers] = AdminClient(options)
    return _kafka_clients[servers]
