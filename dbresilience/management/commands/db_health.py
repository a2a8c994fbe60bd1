"""``manage.py db_health``: the health of the database."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from dbresilience.management.reporting import CRITICAL, FINE, WARNING, ReportCommand, shown
from dbresilience.monitor.health import database_health

STATUSES: Final = {"healthy": FINE, "degraded": WARNING, "unhealthy": CRITICAL}


class Command(ReportCommand):
    help = "Tell the health of the database. Exit status: 0 healthy, 1 degraded, 2 unhealthy."

    def measure(self, **options: Any) -> tuple[dict[str, Any], int]:
        found = database_health()
        return found, STATUSES[found["summary"]["status"]]

    def lines(self, found: dict[str, Any]) -> Iterable[str]:
        pool, performance, reliability = found["connection_pool"], found["performance"], found["reliability"]
        yield f"{found['summary']['status']}, {found['summary']['timestamp']}"
        limit = "" if pool["server_max_connections"] is None else f" of {pool['server_max_connections']}"
        yield f"server connections       {shown(pool['server_connections'])}{limit}"
        yield f"pool in use              {shown(pool['utilization_percent'], ' %')}"
        yield f"statement, average 24 h  {shown(performance['avg_query_time_ms'], ' ms')}"
        yield f"slow statements, 24 h    {shown(performance['slow_queries_24h'])}"
        yield f"errors, last hour        {shown(performance['errors_last_hour'])}"
        yield f"deadlocks, 24 h          {shown(reliability['deadlocks_24h'])}"
        came_through = reliability["recovery_success_rate"]
        percent = None if came_through is None else round(came_through * 100, 1)
        yield f"retries came through     {shown(percent, ' %')}"
        for alert in found["alerts"]:
            yield f"{alert['level']}: {alert['message']}"
        for text in found["recommendations"]:
            yield f"recommended: {text}"
