"""The health of everything that the service needs, told to operators."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, Final

import structlog
from django.utils import timezone

from dbresilience.monitor.health import database_health
from operations.readiness import Component, components

TIMEOUT: Final = 5.0
"""Seconds after which a component that has not answered counts as down."""

log = structlog.get_logger(__name__)

# Threads start when they are first needed, so after any fork.
_executor: Final = ThreadPoolExecutor(max_workers=8, thread_name_prefix="health")


def system_health() -> dict[str, Any]:
    """Every component's state, and the database's health in short.

    ``unhealthy`` when a critical component is down or the database is unhealthy, ``degraded`` when anything else is
    amiss. Unlike ``/readyz``, which strangers may ask, it names the class of what went wrong.
    """
    checked: dict[str, Future[dict[str, Any]]] = {
        component.name: _executor.submit(_look, component) for component in components()
    }
    wait(checked.values(), timeout=TIMEOUT)
    critical = {component.name: component.is_critical for component in components()}
    late = {"status": "down", "detail": "no answer in time", "milliseconds": TIMEOUT * 1000}
    found = {
        name: {"critical": critical[name], **(future.result() if future.done() else late)}
        for name, future in checked.items()
    }
    health = database_health()
    return {
        "status": _status(found, health["summary"]["status"]),
        "timestamp": timezone.now().isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "components": found,
        "database": {
            "status": health["summary"]["status"],
            "response_ms": health["performance"]["response_time_ms"],
            "alerts": [alert["message"] for alert in health["alerts"]],
        },
    }


def _look(component: Component) -> dict[str, Any]:
    started = time.perf_counter()
    try:
        detail = component.check()
    except Exception as exc:  # noqa: BLE001 - whatever it is, it is what the operator wants to see
        log.warning("component_unavailable", component=component.name, error=type(exc).__name__)
        detail = f"does not answer ({type(exc).__name__})"
    return {
        "status": "down" if detail else "up",
        "detail": detail,
        "milliseconds": round((time.perf_counter() - started) * 1000, 1),
    }


def _status(found: dict[str, dict[str, Any]], database: str) -> str:
    down = [entry for entry in found.values() if entry["status"] == "down"]
    if database == "unhealthy" or any(entry["critical"] for entry in down):
        return "unhealthy"
    return "degraded" if down or database == "degraded" else "healthy"
