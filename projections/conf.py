"""Settings of this app, with their defaults; each is a Django setting or an environment variable of the same name."""

from __future__ import annotations

from dataclasses import dataclass

from dbresilience.typed_settings import number, whole


@dataclass(frozen=True, slots=True)
class ProjectionSettings:
    """How read models are kept up to date.

    Attributes:
        batch_size: events at a time (``PROJECTIONS_BATCH_SIZE``, 2000); up to four times as many while a read model is
            far behind and its batches are quick.
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
        batch_size=whole("PROJECTIONS_BATCH_SIZE", 2_000, 1, 50_000),
        lease_seconds=number("PROJECTIONS_LEASE_SECONDS", 10.0, 1.0, 3600.0),
        stale_seconds=number("PROJECTIONS_STALE_SECONDS", 30.0, 1.0, 86_400.0),
        alert_failures=whole("PROJECTIONS_ALERT_FAILURES", 10, 0, 1_000_000),
        alert_lag_seconds=number("PROJECTIONS_ALERT_LAG_SECONDS", 300.0, 1.0, 86_400.0),
        replays_per_minute=whole("PROJECTIONS_REPLAYS_PER_MINUTE", 6, 1, 10_000),
    )
