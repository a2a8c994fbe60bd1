"""Diagnostics: questions that take a closer look, each with its answer, how bad it is and what to do."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from dbresilience.monitor.alerts import alerts_of, recommendations_of
from dbresilience.monitor.conf import monitor_settings
from dbresilience.monitor.health import measured_now, status_of

Result = Literal["ok", "warning", "critical", "unknown"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One question and its answer.

    Attributes:
        check: stable word for the question.
        result: ok, warning, critical, or unknown when it could not be measured.
        message: the answer in a sentence.
    """

    check: str
    result: Result
    message: str


# Which alerts answer which question, what is said when there is none, and the figures that it needs.
_CHECKS: tuple[tuple[str, frozenset[str], str, tuple[str, ...]], ...] = (
    ("reachable", frozenset({"unreachable"}), "The server answers.", ()),
    ("connections", frozenset({"connections_near_limit"}), "The server has connections to spare.", ("server",)),
    (
        "pools",
        frozenset({"pool_near_exhaustion", "connections_leaked"}),
        "The pools have connections to spare.",
        ("pools",),
    ),
    ("locks", frozenset({"sessions_blocked"}), "Nobody waits for a lock for long.", ("blocked_sessions",)),
    ("transactions", frozenset({"long_transactions"}), "No transaction is open for long.", ("long_transactions",)),
    ("errors", frozenset({"many_errors", "repeated_timeouts"}), "Errors and time-outs are few.", ("last_hour",)),
    ("retries", frozenset({"retries_fail", "commits_unknown"}), "Retried transactions come through.", ("last_24h",)),
    ("statements", frozenset({"slow_statements"}), "Slow statements are few.", ("last_24h",)),
    ("deadlocks", frozenset({"deadlocks"}), "Deadlocks are few.", ("last_24h",)),
    (
        "cache",
        frozenset({"cache_misses"}),
        "Reads are served from memory, or there were too few to tell.",
        ("database",),
    ),
    ("transaction_ids", frozenset({"transaction_ids_run_out"}), "Old rows are frozen in time.", ("transaction_ids",)),
    (
        "replication",
        frozenset({"replication_slot_retains_wal"}),
        "No replication slot holds back much.",
        ("replication_slots",),
    ),
    ("dead_rows", frozenset({"dead_rows"}), "Dead rows are cleaned up.", ("tables",)),
)


def database_diagnostics() -> dict[str, Any]:
    """Measure everything, ask every question, and return answers and evidence as JSON."""
    figures, deadlocks = measured_now(deep=True)
    alerts = alerts_of(figures, deadlocks, monitor_settings())
    findings: list[Finding] = []
    for check, codes, fine, needs in _CHECKS:
        raised = [alert for alert in alerts if alert.code in codes]
        if raised:
            findings += [Finding(check, alert.level, alert.message) for alert in raised]
        elif any(figures.get(name) is None for name in needs) or not figures["reachable"]:
            findings.append(Finding(check, "unknown", "This could not be measured."))
        else:
            findings.append(Finding(check, "ok", fine))
    findings.append(_index_finding(figures))
    return {
        "status": status_of(alerts),
        "timestamp": figures["measured_at"],
        "findings": [asdict(finding) for finding in findings],
        "recommendations": recommendations_of(alerts, deadlocks, figures),
        "figures": figures,
        "deadlocks": deadlocks,
    }


def _index_finding(figures: dict[str, Any]) -> Finding:
    unused, missing = figures["unused_indexes"], figures["missing_indexes"]
    if unused is None or missing is None:
        return Finding("indexes", "unknown", "This could not be measured.")
    if not unused and not missing:
        return Finding("indexes", "ok", "No large index is unused and none seems to be missing.")
    return Finding("indexes", "warning", f"{len(unused)} large indexes are unused; {len(missing)} seem to be missing.")
