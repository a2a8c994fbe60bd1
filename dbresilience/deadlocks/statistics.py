"""Deadlocks added up: how often, between which tables and statements, how bad, and what would prevent them."""

from __future__ import annotations

from typing import Any, Final, Literal

from dbresilience.monitor.conf import MonitorSettings
from dbresilience.monitor.connection import MonitorConnection

Severity = Literal["low", "medium", "high", "critical"]

# Serves deadlock_groups: one row for each pair of tables and statements, most frequent first. What was held and what
# was waited for are of one victim: of the pair either may have been either.
GROUPS_SQL: Final = """
SELECT fingerprint, tables, count, first_at, last_at, victim[1] AS held_table, victim[2] AS held_statement,
       victim[3] AS waited_table, victim[4] AS waited_statement, other_statement, code
  FROM (SELECT fingerprint, tables, count(*)::int AS count, min(at) AS first_at, max(at) AS last_at,
               mode() WITHIN GROUP (ORDER BY ARRAY[held_table, held_statement, waited_table, waited_statement])
               AS victim,
               max(nullif(other_statement, '')) AS other_statement,
               array_agg(DISTINCT code) FILTER (WHERE code <> '') AS code
          FROM dbresilience_deadlock WHERE at > clock_timestamp() - make_interval(secs => %(seconds)s)
         GROUP BY fingerprint, tables) AS pair
 ORDER BY count DESC, last_at DESC LIMIT 50
"""
# Serves deadlock_frequency: counts for each hour of the window that had any.
HOURS_SQL: Final = """
SELECT date_trunc('hour', at) AS hour, count(*)::int AS count FROM dbresilience_deadlock
 WHERE at > clock_timestamp() - make_interval(secs => %(seconds)s) GROUP BY 1 ORDER BY 1
"""
# Serves deadlock_count.
COUNT_SQL: Final = """
SELECT count(*)::int AS count FROM dbresilience_deadlock
 WHERE at > clock_timestamp() - make_interval(secs => %(seconds)s)
"""
# Serves lock_order: which of the tables refer to which by a foreign key. A referenced table is the natural one to lock
# first: inserting a row that refers to it locks it anyway.
REFERENCES_SQL: Final = """
SELECT conrelid::regclass::text AS child, confrelid::regclass::text AS parent FROM pg_constraint
 WHERE contype = 'f' AND conrelid <> confrelid
   AND conrelid::regclass::text = ANY (%(tables)s) AND confrelid::regclass::text = ANY (%(tables)s)
"""


def deadlock_count(connection: MonitorConnection, seconds: int = 86_400) -> int:
    """How many deadlocks there were in the last ``seconds``."""
    (row,) = connection.execute(COUNT_SQL, {"seconds": seconds}).fetchall()
    return int(row["count"])


def deadlock_statistics(
    connection: MonitorConnection, config: MonitorSettings, seconds: int = 86_400
) -> dict[str, Any]:
    """Deadlocks of the last ``seconds``: total, severity, groups with a recommendation each, and counts by hour."""
    rows = connection.execute(GROUPS_SQL, {"seconds": seconds}).fetchall()
    hours = connection.execute(HOURS_SQL, {"seconds": seconds}).fetchall()
    total = sum(row["count"] for row in hours)
    groups = []
    for row in rows:
        order = lock_order(connection, row["tables"])
        groups.append(row | {"lock_order": order, "recommendation": recommendation(row["tables"], order, row["count"])})
    return {
        "window_seconds": seconds,
        "count": total,
        "per_hour": round(total * 3600 / seconds, 3),
        "severity": severity(total * 86_400 / seconds, config),
        "thresholds": {
            "medium": config.deadlocks_medium,
            "high": config.deadlocks_high,
            "critical": config.deadlocks_critical,
            "unit": "deadlocks in 24 h",
        },
        "groups": groups,
        "by_hour": hours,
    }


def severity(per_day: float, config: MonitorSettings) -> Severity:
    """How bad a number of deadlocks a day is."""
    if per_day >= config.deadlocks_critical:
        return "critical"
    if per_day >= config.deadlocks_high:
        return "high"
    return "medium" if per_day >= config.deadlocks_medium else "low"


def lock_order(connection: MonitorConnection, tables: list[str]) -> list[str]:
    """An order in which every transaction should lock these tables: referenced ones first, else by name."""
    if len(tables) < 2:
        return list(tables)
    edges = connection.execute(REFERENCES_SQL, {"tables": tables}).fetchall()
    order: list[str] = []
    left = sorted(tables)
    while left:
        free = [t for t in left if not any(e["child"] == t and e["parent"] in left and e["parent"] != t for e in edges)]
        # Two tables that refer to each other have no natural order; the name decides then too.
        chosen = (free or left)[0]
        order.append(chosen)
        left.remove(chosen)
    return order


def recommendation(tables: list[str], order: list[str], count: int) -> str:
    """What would prevent such deadlocks, in a sentence or two."""
    times = "once" if count == 1 else f"{count} times"
    if not tables:
        return f"Deadlocked {times} on locks that belong to no table (advisory locks): take them in one fixed order."
    if len(tables) == 1:
        return (
            f"Transactions deadlocked {times} on rows of {tables[0]}. Before changing several of them, lock them in "
            "the order of their primary key (ORDER BY … FOR UPDATE)."
        )
    return (
        f"Transactions deadlocked {times} on {' and '.join(tables)}. Lock them in one order everywhere: "
        f"{', then '.join(order)}."
    )
