"""What our own processes counted in a window of time, added up."""

from __future__ import annotations

from typing import Any, Final

from dbresilience.monitor.connection import MonitorConnection
from dbresilience.monitor.queries import TALLIES_SQL
from dbresilience.observations.errors import TIMEOUT_KEYS
from dbresilience.observations.names import TallyName

_VIOLATION: Final = "23"
_CONTENTION: Final = "40"


def observed(connection: MonitorConnection, seconds: int) -> dict[str, Any]:
    """Counts of the last ``seconds``; averages and rates are None where there is nothing to take them of.

    ``errors`` leaves out violated constraints, which are answers to somebody's input, and deadlocks and serialization
    failures, which are retried; both are counted beside it.
    """
    rows = connection.execute(TALLIES_SQL, {"seconds": seconds}).fetchall()
    counts: dict[str, dict[str, int]] = {}
    for row in rows:
        counts.setdefault(row["name"], {})[row["key"]] = row["count"]
    timing = next((row for row in rows if row["name"] == TallyName.STATEMENT), None)
    errors = counts.get(TallyName.ERROR, {})
    faults = sum(count for key, count in errors.items() if not key.startswith((_VIOLATION, _CONTENTION)))
    recovered = sum(counts.get(TallyName.RETRY_RECOVERED, {}).values())
    given_up = sum(counts.get(TallyName.RETRY_GIVEN_UP, {}).values())
    slow = sorted(
        (row for row in rows if row["name"] == TallyName.SLOW_STATEMENT), key=lambda row: -row["microseconds"]
    )
    return {
        "statements": timing["count"] if timing else None,
        "average_ms": round(timing["microseconds"] / timing["count"] / 1000, 3) if timing else None,
        "slowest_ms": round(timing["slowest"] / 1000, 3) if timing else None,
        "slow_statements": sum(row["count"] for row in slow) if timing else None,
        "slow": [
            {
                "statement": row["key"],
                "count": row["count"],
                "average_ms": round(row["microseconds"] / row["count"] / 1000, 1),
                "slowest_ms": round(row["slowest"] / 1000, 1),
            }
            for row in slow[:20]
        ],
        "errors": faults,
        "violations": sum(count for key, count in errors.items() if key.startswith(_VIOLATION)),
        "contention": sum(count for key, count in errors.items() if key.startswith(_CONTENTION)),
        "errors_by_sqlstate": dict(sorted(errors.items(), key=lambda item: -item[1])),
        "errors_per_hour": round(faults * 3600 / seconds, 2),
        "timeouts": sum(errors.get(key, 0) for key in TIMEOUT_KEYS),
        "recovered": recovered,
        "given_up": given_up,
        "recovery_success_rate": round(recovered / (recovered + given_up), 4) if recovered + given_up else None,
        "commits_resolved": counts.get(TallyName.COMMIT_RESOLVED, {}),
        "unrecorded": sum(counts.get(TallyName.UNRECORDED, {}).values()),
    }
