"""Settings of this app, with their defaults; each is a Django setting or an environment variable of the same name."""

from __future__ import annotations

import os
from dataclasses import dataclass

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured


@dataclass(frozen=True, slots=True)
class ProjectionSettings:
    """How read models are kept up to date.

    Attributes:
        batch_size: events at a time (``PROJECTIONS_BATCH_SIZE``, 2000).
        lease_seconds: how long a read model stays with a runner that gives no sign (``PROJECTIONS_LEASE_SECONDS``, 10);
            a dead runner's read models rest that long.
        stale_seconds: a read model that did not move for that long while events wait is not healthy
            (``PROJECTIONS_STALE_SECONDS``, 30).
        alert_failures: more active failures than that raise an alert (``PROJECTIONS_ALERT_FAILURES``, 10).
        alert_lag_seconds: more lag than that raises an alert (``PROJECTIONS_ALERT_LAG_SECONDS``, 300).
        replays_per_minute: replays that one caller may start a minute (``PROJECTIONS_REPLAYS_PER_MINUTE``, 6).
    """

    batch_size: int
    lease_seconds: float
    stale_seconds: float
    alert_failures: int
    alert_lag_seconds: float
    replays_per_minute: int


def projection_settings() -> ProjectionSettings:
    """The settings in force.

    Raises:
        ImproperlyConfigured: a value is no number or out of its range; the message names the setting.
    """
    return ProjectionSettings(
        batch_size=int(_number("PROJECTIONS_BATCH_SIZE", 2_000, 1, 50_000)),
        lease_seconds=_number("PROJECTIONS_LEASE_SECONDS", 10.0, 1.0, 3600.0),
        stale_seconds=_number("PROJECTIONS_STALE_SECONDS", 30.0, 1.0, 86_400.0),
        alert_failures=int(_number("PROJECTIONS_ALERT_FAILURES", 10, 0, 1_000_000)),
        alert_lag_seconds=_number("PROJECTIONS_ALERT_LAG_SECONDS", 300.0, 1.0, 86_400.0),
        replays_per_minute=int(_number("PROJECTIONS_REPLAYS_PER_MINUTE", 6, 1, 10_000)),
    )


def _number(name: str, default: float, low: float, high: float) -> float:
    raw = getattr(settings, name, os.environ.get(name, default))
    try:
        value = float(str(raw))
    except ValueError as exc:
        raise ImproperlyConfigured(f"{name} must be a number, not {raw!r}.") from exc
    if not low <= value <= high:
        raise ImproperlyConfigured(f"{name} must be between {low:g} and {high:g}, not {value:g}.")
    return value
