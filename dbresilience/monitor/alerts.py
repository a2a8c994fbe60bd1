"""What the figures mean: alerts and recommendations, each from a figure and a threshold that is a setting."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from dbresilience.monitor.conf import MonitorSettings

Level = Literal["warning", "critical"]

CRITICAL_XID_AGE: Final = 1_600_000_000
"""The server refuses to write at 2,147,483,647 less 3 million; this leaves time to vacuum."""


@dataclass(frozen=True, slots=True)
class Alert:
    """Something that is beyond its threshold.

    Attributes:
        code: stable word for programs.
        level: warning or critical.
        message: what is wrong, with the figure.
        figure: what was measured.
        threshold: from where on it is an alert.
        setting: the setting that holds the threshold; empty when it is fixed.
        recommendation: what to do about it.
    """

    code: str
    level: Level
    message: str
    figure: float | str | None
    threshold: float | None
    setting: str
    recommendation: str


def alerts_of(figures: dict[str, Any], deadlocks: dict[str, Any] | None, config: MonitorSettings) -> list[Alert]:
    """All alerts, critical ones first. A figure that is None raises none."""
    if not figures["reachable"]:
        message = f"The database does not answer ({figures['error']})."
        fix = "Look whether the server runs and can be reached from here, and whether it has free connections."
        return [Alert("unreachable", "critical", message, figures["error"], None, "", fix)]
    found = [
        *_connection_alerts(figures, config),
        *_pool_alerts(figures, config),
        *_error_alerts(figures, config),
        *_deadlock_alerts(deadlocks, config),
        *_server_alerts(figures, config),
        *_table_alerts(figures, config),
    ]
    return sorted(found, key=lambda alert: alert.level != "critical")


def alert_documents(alerts: list[Alert]) -> list[dict[str, Any]]:
    """The alerts as JSON."""
    return [asdict(alert) for alert in alerts]


def recommendations_of(alerts: list[Alert], deadlocks: dict[str, Any] | None, figures: dict[str, Any]) -> list[str]:
    """What to do, most urgent first, each once; empty when nothing measured asks for anything."""
    found = [alert.recommendation for alert in alerts if alert.recommendation]
    found += [group["recommendation"] for group in (deadlocks or {}).get("groups", [])]
    for index in figures.get("unused_indexes") or []:
        megabytes = index["bytes"] / 1_048_576
        found.append(
            f"Nothing has read the index {index['index']} on {index['table']} ({megabytes:.0f} MB) since the counters "
            "were reset; drop it if that is long enough ago."
        )
    for table in figures.get("missing_indexes") or []:
        what = f"its columns {table['columns']}" if table["columns"] else "what its slow statements filter by"
        found.append(f"{table['table']}: {table['reason']}. Consider an index on {what}.")
    return list(dict.fromkeys(found))


def _connection_alerts(figures: dict[str, Any], config: MonitorSettings) -> Iterator[Alert]:
    if server := figures["server"]:
        percent = round(100 * server["client_connections"] / server["max_connections"], 1)
        if percent >= config.alert_connections_percent:
            yield Alert(
                "connections_near_limit",
                "critical" if percent >= 95 else "warning",
                f"{server['client_connections']} of {server['max_connections']} connections of the server are in use.",
                percent,
                config.alert_connections_percent,
                "DB_ALERT_CONNECTIONS_PERCENT",
                "Lower DB_POOL_SIZE and DB_MAX_OVERFLOW, run fewer processes, or raise max_connections.",
            )
    blocked = figures["blocked_sessions"] or []
    if blocked and blocked[0]["seconds"] >= 5:
        yield Alert(
            "sessions_blocked",
            "warning",
            f"{len(blocked)} sessions wait for locks, the longest for {blocked[0]['seconds']:.0f} s.",
            blocked[0]["seconds"],
            5,
            "",
            f"See who holds the lock: manage.py db_locks. The first to wait is blocked by process "
            f"{blocked[0]['blocked_by'][0]}.",
        )
    long = figures["long_transactions"] or []
    if long:
        yield Alert(
            "long_transactions",
            "warning",
            f"{len(long)} transactions are open for longer than {config.long_transaction_seconds:.0f} s, the longest "
            f"for {long[0]['seconds']:.0f} s ({long[0]['application']}, {long[0]['state']}).",
            long[0]["seconds"],
            config.long_transaction_seconds,
            "DB_LONG_TRANSACTION_SECONDS",
            "Commit sooner: an open transaction keeps dead rows from being cleaned up and holds its locks.",
        )


def _pool_alerts(figures: dict[str, Any], config: MonitorSettings) -> Iterator[Alert]:
    if (pools := figures["pools"]) is None:
        return
    if pools["busiest_percent"] >= config.alert_pool_percent:
        yield Alert(
            "pool_near_exhaustion",
            "critical" if pools["total"]["waiting"] else "warning",
            f"The busiest pool has {pools['busiest_percent']:g} % of its connections in use; "
            f"{pools['total']['waiting']} threads wait.",
            pools["busiest_percent"],
            config.alert_pool_percent,
            "DB_ALERT_POOL_PERCENT",
            "Hold connections for less time (no outside calls inside transactions), or raise DB_MAX_OVERFLOW.",
        )
    if pools["total"]["lost"]:
        yield Alert(
            "connections_leaked",
            "warning",
            f"{pools['total']['lost']} connections were never given back by whoever borrowed them.",
            pools["total"]["lost"],
            1,
            "",
            "The log names the code that borrowed them: look for connection warnings there.",
        )


def _error_alerts(figures: dict[str, Any], config: MonitorSettings) -> Iterator[Alert]:
    if hour := figures["last_hour"]:
        if hour["errors"] >= config.alert_errors_per_hour:
            worst = next(key for key in hour["errors_by_sqlstate"] if not key.startswith(("23", "40")))
            yield Alert(
                "many_errors",
                "warning",
                f"{hour['errors']} errors in the last hour, most of them {worst}.",
                hour["errors"],
                config.alert_errors_per_hour,
                "DB_ALERT_ERRORS_PER_HOUR",
                f"Look at what raises {worst}: PostgreSQL's documentation, appendix A, says what it is.",
            )
        if hour["timeouts"] >= config.alert_timeouts_per_hour:
            yield Alert(
                "repeated_timeouts",
                "warning",
                f"{hour['timeouts']} statements, locks or connections timed out in the last hour.",
                hour["timeouts"],
                config.alert_timeouts_per_hour,
                "DB_ALERT_TIMEOUTS_PER_HOUR",
                "Find what is slow or blocks: manage.py db_diagnose and manage.py db_locks.",
            )
    if day := figures["last_24h"]:
        rate = day["recovery_success_rate"]
        if rate is not None and rate * 100 < config.alert_recovery_percent:
            yield Alert(
                "retries_fail",
                "critical" if rate < 0.5 else "warning",
                f"Only {rate:.0%} of the transactions that were retried came through.",
                rate,
                config.alert_recovery_percent,
                "DB_ALERT_RECOVERY_PERCENT",
                "Make transactions shorter and lock rows in one order; only then raise DB_DEADLOCK_RETRY_COUNT.",
            )
        if unknown := day["commits_resolved"].get("unknown"):
            yield Alert(
                "commits_unknown",
                "critical",
                f"{unknown} transactions may or may not have committed: the answer was lost and the server not asked.",
                unknown,
                1,
                "",
                "Look for commit_answer_lost in the log, and ask pg_xact_status of each transaction id there.",
            )
        if (day["slow_statements"] or 0) >= config.alert_slow_queries:
            slowest = day["slow"][0]
            yield Alert(
                "slow_statements",
                "warning",
                f"{day['slow_statements']} statements took longer than {config.slow_query_ms:g} ms in 24 h.",
                day["slow_statements"],
                config.alert_slow_queries,
                "DB_ALERT_SLOW_QUERIES",
                f"Begin with the one that took most: {slowest['statement'][:120]} ({slowest['count']} times).",
            )


def _deadlock_alerts(deadlocks: dict[str, Any] | None, config: MonitorSettings) -> Iterator[Alert]:
    if deadlocks is None or deadlocks["severity"] == "low":
        return
    name = f"deadlocks_{deadlocks['severity']}"
    yield Alert(
        "deadlocks",
        "critical" if deadlocks["severity"] == "critical" else "warning",
        f"{deadlocks['count']} deadlocks in 24 h; severity {deadlocks['severity']}.",
        deadlocks["count"],
        getattr(config, name),
        f"DB_{name.upper()}",
        "",
    )


def _server_alerts(figures: dict[str, Any], config: MonitorSettings) -> Iterator[Alert]:
    database = figures["database"] or {}
    rate = database.get("cache_hit_rate")
    # A server that has only just started has read everything for the first time.
    is_telling = (database.get("blks_hit") or 0) + (database.get("blks_read") or 0) > 100_000
    if is_telling and rate is not None and rate * 100 < config.alert_cache_hit_percent:
        yield Alert(
            "cache_misses",
            "warning",
            f"{rate:.1%} of the blocks were found in memory.",
            rate,
            config.alert_cache_hit_percent,
            "DB_ALERT_CACHE_HIT_PERCENT",
            "Give shared_buffers more memory, or find what reads large tables from end to end.",
        )
    age = (figures["transaction_ids"] or {}).get("age")
    if age is not None and age >= config.alert_xid_age:
        yield Alert(
            "transaction_ids_run_out",
            "critical" if age >= CRITICAL_XID_AGE else "warning",
            f"The oldest unfrozen row is {age:,} transactions old; the server stops writing near 2,147 million.",
            age,
            config.alert_xid_age,
            "DB_ALERT_XID_AGE",
            "Let autovacuum run: end long transactions and idle replication slots, then VACUUM the oldest tables.",
        )
    for slot in figures["replication_slots"] or []:
        megabytes = (slot["retained_bytes"] or 0) / 1_048_576
        if megabytes >= config.alert_slot_megabytes:
            yield Alert(
                "replication_slot_retains_wal",
                "warning" if slot["active"] else "critical",
                f"The replication slot {slot['name']} holds back {megabytes:,.0f} MB of WAL.",
                round(megabytes),
                config.alert_slot_megabytes,
                "DB_ALERT_SLOT_MEGABYTES",
                f"Bring the reader of {slot['name']} back, or drop the slot before the disk is full.",
            )


def _table_alerts(figures: dict[str, Any], config: MonitorSettings) -> Iterator[Alert]:
    for table in figures.get("tables") or []:
        percent = table["dead_rows_percent"]
        if percent is not None and percent >= config.alert_dead_rows_percent and table["dead_rows"] >= 10_000:
            yield Alert(
                "dead_rows",
                "warning",
                f"{percent:g} % of the rows of {table['table']} are dead ({table['dead_rows']:,}).",
                percent,
                config.alert_dead_rows_percent,
                "DB_ALERT_DEAD_ROWS_PERCENT",
                f"VACUUM {table['table']}; if they come back, lower its autovacuum_vacuum_scale_factor.",
            )
