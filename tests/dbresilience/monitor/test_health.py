from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import ProgrammingError, connection

from dbresilience.monitor.conf import monitor_settings
from dbresilience.monitor.connection import monitor_connection
from dbresilience.monitor.diagnostics import database_diagnostics
from dbresilience.monitor.figures import DAY, figures_now
from dbresilience.monitor.health import database_health, deadlocks_now
from dbresilience.observations.writer import observations_write
from tests.dbresilience.monitor.deadlock import lock_in_reverse

pytestmark = [pytest.mark.feature("A7", "B8", "B10")]

ANN, BOB = (
    "UPDATE account SET balance = balance - 1 WHERE id = 1",
    "UPDATE account SET balance = balance - 1 WHERE id = 2",
)


@contextmanager
def session() -> Iterator[psycopg.Connection[Any]]:
    parameters = connection.get_connection_params()
    known = {key: parameters[key] for key in ("host", "port", "user", "dbname")}
    with psycopg.connect(**known, autocommit=True, application_name="test session") as other:
        yield other


def codes(document: dict[str, Any]) -> set[str]:
    return {alert["code"] for alert in document["alerts"]}


def test_it_has_the_documents_shape() -> None:
    found = database_health()

    assert set(found) == {"summary", "connection_pool", "performance", "reliability", "recommendations", "alerts"}
    assert {"status", "timestamp"} <= set(found["summary"])
    assert {"total_connections", "active_connections", "utilization_percent", "overflow_connections"} <= set(
        found["connection_pool"]
    )
    assert {"avg_query_time_ms", "slow_queries_24h", "error_rate_per_hour"} <= set(found["performance"])
    assert {"deadlocks_24h", "deadlock_severity", "recovery_success_rate"} <= set(found["reliability"])


@pytest.mark.parametrize("measure", [database_health, database_diagnostics])
def test_it_measures_on_one_connection(measure: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    connect = psycopg.connect

    def noted(*args: Any, **parameters: Any) -> Any:
        made.append(parameters["application_name"])
        return connect(*args, **parameters)

    monkeypatch.setattr(psycopg, "connect", noted)

    measure()

    assert made == ["zenskar monitor"]


def test_it_is_healthy_and_null_where_nothing_was_measured() -> None:
    found = database_health()

    assert found["summary"]["status"] == "healthy"
    assert found["alerts"] == []
    assert found["recommendations"] == []
    assert found["performance"]["avg_query_time_ms"] is None
    assert found["reliability"]["recovery_success_rate"] is None
    assert found["performance"]["response_time_ms"] > 0


def test_it_measures_errors_statements_and_recoveries(accounts: str, settings: object) -> None:
    settings.DB_RETRY_BASE_DELAY = 0.01  # type: ignore[attr-defined]
    lock_in_reverse([ANN, BOB], [BOB, ANN])
    with pytest.raises(ProgrammingError), connection.cursor() as cursor:
        cursor.execute("SELECT * FROM no_such_table")
    observations_write()

    found = database_health()

    assert found["performance"]["avg_query_time_ms"] > 0
    assert found["reliability"]["deadlocks_24h"] == 1
    assert found["reliability"]["deadlock_severity"] == "low"
    assert found["reliability"]["errors_by_sqlstate_24h"]["42P01"] == 1
    assert found["reliability"]["errors_by_sqlstate_24h"]["40P01"] == 1


def test_it_says_what_would_prevent_the_deadlocks(accounts: str, settings: object) -> None:
    settings.DB_RETRY_BASE_DELAY = 0.01  # type: ignore[attr-defined]
    settings.DB_DEADLOCKS_MEDIUM = settings.DB_DEADLOCKS_HIGH = 1  # type: ignore[attr-defined]
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO bank VALUES (5)")
    bank = "UPDATE bank SET id = id WHERE id = 5"
    lock_in_reverse([ANN, bank], [bank, ANN])
    observations_write()

    found, statistics = database_health(), deadlocks_now(DAY)

    assert statistics is not None
    assert statistics["severity"] == "high"
    assert statistics["groups"][0]["lock_order"] == ["bank", "account"]
    assert "deadlocks" in codes(found)
    assert any("bank, then account" in text for text in found["recommendations"])
    assert found["summary"]["status"] == "degraded"


def test_it_alerts_on_repeated_time_outs_from_the_threshold_on(settings: object) -> None:
    settings.DB_ALERT_TIMEOUTS_PER_HOUR = 2  # type: ignore[attr-defined]

    def time_out() -> None:
        with pytest.raises(Exception, match="timeout"), connection.cursor() as cursor:
            cursor.execute("SET statement_timeout = 1; SELECT pg_sleep(1)")
        with connection.cursor() as cursor:
            cursor.execute("RESET statement_timeout")

    time_out()
    observations_write()
    below = database_health()
    time_out()
    observations_write()
    at_threshold = database_health()

    assert "repeated_timeouts" not in codes(below)
    assert "repeated_timeouts" in codes(at_threshold)


def test_it_shows_long_transactions_and_who_blocks_whom_without_values(accounts: str, settings: object) -> None:
    settings.DB_LONG_TRANSACTION_SECONDS = 1  # type: ignore[attr-defined]
    with session() as holder, session() as waiter:
        holder.execute("BEGIN")
        holder.execute("UPDATE account SET owner = 'canary' WHERE id = 1")
        thread = threading.Thread(target=waiter.execute, args=("UPDATE account SET owner = 'canary2' WHERE id = 1",))
        thread.start()
        with session() as watch:
            waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            while watch.execute(waits).fetchone() == (0,):
                watch.execute("SELECT pg_sleep(0.01)")
            watch.execute("SELECT pg_sleep(1.1)")

            figures = figures_now(deep=True)

        pid = holder.info.backend_pid
        holder.execute("ROLLBACK")
        thread.join()
    blocked = figures["blocked_sessions"][0]
    assert blocked["blocked_by"] == [pid]
    assert blocked["statement"] == "UPDATE account SET owner = ? WHERE id = ?"
    assert blocked["relation"] == "account"
    assert figures["long_transactions"][0]["application"] == "test session"
    assert "canary" not in str(figures)


def test_it_measures_tables_sizes_and_ages(accounts: str) -> None:
    figures = figures_now(deep=True)

    assert all(figures[name] is not None for name in figures if name not in ("error", "pools", "statements"))
    assert figures["statements"] is None
    assert figures["transaction_ids"]["age"] > 0
    assert figures["database"]["bytes"] > 1_000_000
    assert figures["server"]["max_connections"] > figures["server"]["client_connections"] > 0


def test_it_finds_a_foreign_key_without_an_index(accounts: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO account (id, owner) SELECT n, n::text FROM generate_series(10, 12000) n; ANALYZE account"
        )

    found = database_diagnostics()

    missing = [row for row in found["figures"]["missing_indexes"] if row["table"] == "account"]
    assert [row["columns"] for row in missing] == ["bank_id"]
    assert {finding["check"]: finding["result"] for finding in found["findings"]}["indexes"] == "warning"


def test_it_answers_when_one_figure_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dbresilience.monitor.queries.XID_SQL", "SELECT no_such_column")

    figures = figures_now(deep=False)

    assert figures["transaction_ids"] is None
    assert figures["connections"] is not None


def test_it_answers_when_the_database_is_away() -> None:
    name = connection.settings_dict["NAME"]
    connection.settings_dict["NAME"] = "no_such_database"
    try:
        found = database_health()
        diagnostics = database_diagnostics()
    finally:
        connection.settings_dict["NAME"] = name

    assert found["summary"]["status"] == "unhealthy"
    assert codes(found) == {"unreachable"}
    assert found["connection_pool"]["server_connections"] is None
    assert {finding["result"] for finding in diagnostics["findings"]} == {"critical", "unknown"}


def test_it_gives_up_at_its_deadline() -> None:
    with pytest.raises(psycopg.Error), monitor_connection(deadline=0.2) as own:
        own.execute("SELECT pg_sleep(30)")


def test_it_writes_nothing_when_it_only_reads() -> None:
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction), monitor_connection() as own:
        own.execute("CREATE TABLE written (id int)")


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("DB_SLOW_QUERY_MS", "many", "number"),
        ("DB_ALERT_POOL_PERCENT", 101, "between"),
        ("DB_MONITOR_KEEP_DAYS", -1, "between"),
        ("DB_MONITOR_DEADLINE", float("nan"), "between"),
        ("DB_DEADLOCKS_HIGH", 1, "DB_DEADLOCKS_MEDIUM"),
    ],
)
def test_it_refuses_a_bad_setting_by_its_name(settings: object, name: str, value: object, reason: str) -> None:
    setattr(settings, name, value)

    with pytest.raises(ImproperlyConfigured, match=name) as caught:
        monitor_settings()

    assert reason in str(caught.value)


def test_it_measures_a_table_that_was_never_analysed_and_waits_for_none_that_is_locked(accounts: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO bank SELECT generate_series(1, 50000)")

    def sizes() -> dict[str, int | None]:
        return {table["table"]: table["bytes"] for table in figures_now(deep=True)["tables"]}

    known = sizes()
    with session() as other, other.transaction():
        other.execute("LOCK TABLE bank IN ACCESS EXCLUSIVE MODE")
        locked = sizes()

    assert (known["bank"] or 0) > 1_500_000
    assert "bank" in locked
    assert locked["bank"] is None
