"""The monitor's samples as charts."""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from django.utils import timezone

from dbresilience.monitor.samples import samples
from operations.database.charts import Chart, Points, Series, line_chart

Reader = Callable[[dict[str, Any]], float | None]


SHORTEST: Final = dt.timedelta(minutes=10)
"""What the axis of time spans at least, however short the history is."""


def charts(hours: int) -> list[Chart]:
    """The last hours, drawn; as much of them as there are samples of."""
    rows = samples(hours=hours)
    end = timezone.now()
    taken = [(dt.datetime.fromisoformat(row["minute"]), row) for row in rows]
    start = end - dt.timedelta(hours=hours)
    since = taken[0][0] if taken and taken[0][0] - start > SHORTEST else None
    if taken:
        # The first day of a service is no dot at the edge of an empty picture.
        start = max(start, min(taken[0][0], end - SHORTEST))

    def values(*path: str, factor: float = 1) -> Points:
        return [(at, _scaled(_at(row, path), factor)) for at, row in taken]

    def rate(*path: str) -> Points:
        return _rates(values(*path))

    def chart(title: str, unit: str = "", /, **lines: Points) -> Chart:
        series = [Series(name.replace("_", " "), points) for name, points in lines.items()]
        return replace(line_chart(title, series, unit=unit, start=start, end=end), since=since)

    return [
        chart(
            "Sessions",
            all=values("connections", "total"),
            active=values("connections", "by_state", "active"),
            idle_in_transaction=values("connections", "by_state", "idle in transaction"),
        ),
        chart(
            "Pools, all processes",
            in_use=values("pools", "total", "borrowed"),
            open=values("pools", "total", "open"),
            waiting=values("pools", "total", "waiting"),
        ),
        chart(
            "Statement time",
            "ms",
            average=values("last_hour", "average_ms"),
            answer_to_SELECT_1=values("response_ms"),
        ),
        chart("Transactions", "/s", committed=rate("database", "commits"), rolled_back=rate("database", "rollbacks")),
        chart(
            "Errors and time-outs, last hour",
            **{"errors": values("last_hour", "errors"), "time-outs": values("last_hour", "timeouts")},
        ),
        # Few and far between: one as a rate an hour would read like sixty.
        chart("Deadlocks since the point before", seen_by_the_server=_changes(values("database", "deadlocks"))),
        chart("Blocks found in memory", "%", hits=values("database", "cache_hit_rate", factor=100)),
        chart("Size of the database", "MB", size=values("database", "bytes", factor=1 / 1_048_576)),
    ]


def _at(row: dict[str, Any], path: tuple[str, ...]) -> float | None:
    value: Any = row
    for name in path:
        if not isinstance(value, dict):
            return None
        value = value.get(name)
    # A state in which there is no session is not listed.
    return 0 if value is None and path[:2] == ("connections", "by_state") and row.get("connections") else value


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def _rates(points: Points) -> Points:
    """Change a second between neighbours; None where it is not known."""
    return [
        (at, None if change is None else change / (at - before).total_seconds())
        for (before, _), (at, change) in zip(points, _changes(points), strict=False)
    ]


def _changes(points: Points) -> Points:
    """Change between neighbours; None where the counter was reset or a neighbour is not known."""
    found: list[tuple[dt.datetime, float | None]] = []
    for (before, old), (at, new) in itertools.pairwise(points):
        is_known = old is not None and new is not None and new >= old and at > before
        found.append((at, new - old if is_known else None))  # type: ignore[operator]
    return found
