"""What is wrong with read models, for whoever is told of it: critical or offline, many failures, lag, a standstill."""

from __future__ import annotations

from collections.abc import Iterator

from operations.alerts.sources import Condition
from operations.models import AlertLevel
from projections.health import projections_health


def conditions() -> Iterator[Condition]:
    """The alerts of what readers see; builds that are being filled alert nobody."""
    for name, one in projections_health().items():
        if one is None:
            continue
        for alert in one.alerts:
            level = AlertLevel.CRITICAL if alert.level == "critical" else AlertLevel.WARNING
            yield Condition(
                key=f"{name}:{alert.code}", level=level, title=f"Read model {name}: {alert.code}", message=alert.message
            )
