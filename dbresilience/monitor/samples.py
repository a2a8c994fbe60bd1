"""Samples: the light figures, once a minute, kept for a week."""

from __future__ import annotations

import datetime as dt
from typing import Any, Final

import structlog
from psycopg.types.json import Jsonb

from dbresilience.monitor.conf import monitor_settings
from dbresilience.monitor.connection import monitor_connection
from dbresilience.monitor.figures import figures_now, plain
from dbresilience.monitor.queries import SAMPLES_SQL, SPAN_SQL

# Serves sample_once. The unique minute decides between samplers that run at once.
INSERT_SQL: Final = """
INSERT INTO dbresilience_sample (minute, figures) VALUES (date_trunc('minute', clock_timestamp()), %(figures)s)
ON CONFLICT (minute) DO NOTHING
"""
# Serves sample_once: what is older than the days that are kept, by its index, and reports of processes that are gone.
DELETE_SQL: Final = (
    "DELETE FROM dbresilience_sample WHERE minute < clock_timestamp() - make_interval(days => %(days)s)",
    "DELETE FROM dbresilience_tally WHERE span < clock_timestamp() - make_interval(days => %(days)s)",
    "DELETE FROM dbresilience_violationtally WHERE span < clock_timestamp() - make_interval(days => %(days)s)",
    "DELETE FROM dbresilience_deadlock WHERE at < clock_timestamp() - make_interval(days => %(days)s)",
    "DELETE FROM dbresilience_processreport WHERE reported_at < clock_timestamp() - interval '1 hour' AND %(days)s > 0",
)

# Long lists are there live; a sample keeps their lengths.
_COUNTED: Final = ("long_transactions", "blocked_sessions", "replication_slots")

log = structlog.get_logger(__name__)


def sample_once() -> int:
    """Measure, keep the sample, delete what is too old; returns the number of samples kept, 0 or 1.

    Raises:
        psycopg.Error: the database cannot be written to; there is nowhere to keep a sample then.
    """
    figures = figures_now(deep=False)
    if not figures["reachable"]:
        return 0
    days = int(monitor_settings().monitor_keep_days)
    with monitor_connection(read_only=False) as connection:
        kept = connection.execute(INSERT_SQL, {"figures": Jsonb(_condensed(figures))}).rowcount
        for statement in DELETE_SQL:
            connection.execute(statement, {"days": days})
    return kept


def samples(*, hours: float, points: int = 240) -> list[dict[str, Any]]:
    """Samples of the last hours, oldest first, thinned out to at most about ``points``, each with its ``minute``.

    A history that is shorter than that keeps as many.
    """
    with monitor_connection() as connection:
        found = connection.execute(SPAN_SQL, {"hours": hours}).fetchone()
        minutes = (found["minutes"] or 0) if found else 0
        step = dt.timedelta(minutes=max(1, round(minutes / points)))
        rows = connection.execute(SAMPLES_SQL, {"hours": hours, "step": step}).fetchall()
    return [plain(row["figures"] | {"minute": row["minute"]}) for row in rows]


def _condensed(figures: dict[str, Any]) -> dict[str, Any]:
    found = {name: value for name, value in figures.items() if name not in ("error", "reachable")}
    for name in _COUNTED:
        found[name] = None if figures[name] is None else len(figures[name])
    for window in ("last_hour", "last_24h"):
        if found[window] is not None:
            found[window] = {key: value for key, value in found[window].items() if key != "slow"}
    if found["pools"] is not None:
        found["pools"] = {key: value for key, value in found["pools"].items() if key != "processes"}
    return found
