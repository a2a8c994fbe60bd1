from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import connection

from dbresilience.monitor.alerts import CRITICAL_XID_AGE, alerts_of, recommendations_of
from dbresilience.monitor.conf import monitor_settings
from dbresilience.monitor.figures import figures_now
from dbresilience.monitor.health import database_health

pytestmark = [pytest.mark.feature("B8", "B10")]

Figures = dict[str, Any]
SLOT = {"name": "reader", "type": "physical", "active": True, "retained_bytes": 0}
TABLE = {"table": "goods", "dead_rows_percent": 20.0, "dead_rows": 10_000}
BLOCKED = {"seconds": 5.0, "blocked_by": [77]}
LONG = {"seconds": 300.0, "application": "psql", "state": "idle in transaction"}


@pytest.fixture(scope="module")
def measured(django_db_setup: None, django_db_blocker: Any) -> Figures:
    """Figures of this server, in which nothing is wrong."""
    with django_db_blocker.unblock():
        return figures_now(deep=False) | {"long_transactions": [], "blocked_sessions": [], "replication_slots": []}


def connections_in_use(figures: Figures, percent: float) -> None:
    figures["server"] = figures["server"] | {"client_connections": percent, "max_connections": 100}


def connections_lost(figures: Figures, count: int) -> None:
    total = {"waiting": 0, "lost": count}
    figures["pools"] = {"busiest_percent": 0, "total": total}


def errors(figures: Figures, count: int) -> None:
    by_sqlstate = {"40P01": 9999, "57014": count}
    figures["last_hour"] = figures["last_hour"] | {"errors": count, "errors_by_sqlstate": by_sqlstate}


def slow_statements(figures: Figures, count: int) -> None:
    slow = [{"statement": "SELECT ?", "count": count}]
    figures["last_24h"] = figures["last_24h"] | {"slow_statements": count, "slow": slow}


def cache_hits(figures: Figures, rate: float) -> None:
    figures["database"] = figures["database"] | {"blks_hit": 100_000, "blks_read": 1, "cache_hit_rate": rate}


def transaction_ids(figures: Figures, age: int) -> None:
    figures["transaction_ids"] = {"age": age, "freeze_max_age": 200_000_000}


def active_slot(figures: Figures, megabytes: int) -> None:
    figures["replication_slots"] = [SLOT | {"retained_bytes": megabytes * 1_048_576}]


def idle_slot(figures: Figures, megabytes: int) -> None:
    figures["replication_slots"] = [SLOT | {"active": False, "retained_bytes": megabytes * 1_048_576}]


def dead_share(figures: Figures, percent: float) -> None:
    figures["tables"] = [TABLE | {"dead_rows_percent": percent}]


def dead_rows(figures: Figures, count: int) -> None:
    figures["tables"] = [TABLE | {"dead_rows": count}]


def blocked(figures: Figures, seconds: float) -> None:
    figures["blocked_sessions"] = [BLOCKED | {"seconds": seconds}]


def long_transactions(figures: Figures, count: int) -> None:
    figures["long_transactions"] = [LONG] * count


@pytest.mark.parametrize(
    ("change", "fine", "wrong", "code", "level"),
    [
        (connections_in_use, 79, 80, "connections_near_limit", "warning"),
        (connections_in_use, 79, 95, "connections_near_limit", "critical"),
        (connections_lost, 0, 1, "connections_leaked", "warning"),
        (errors, 59, 60, "many_errors", "warning"),
        (slow_statements, 999, 1000, "slow_statements", "warning"),
        (cache_hits, 0.9, 0.899, "cache_misses", "warning"),
        (transaction_ids, 499_999_999, 500_000_000, "transaction_ids_run_out", "warning"),
        (transaction_ids, 0, CRITICAL_XID_AGE, "transaction_ids_run_out", "critical"),
        (active_slot, 1023, 1024, "replication_slot_retains_wal", "warning"),
        (idle_slot, 1023, 1024, "replication_slot_retains_wal", "critical"),
        (dead_share, 19.9, 20, "dead_rows", "warning"),
        (dead_rows, 9_999, 10_000, "dead_rows", "warning"),
        (blocked, 4.9, 5, "sessions_blocked", "warning"),
        (long_transactions, 0, 1, "long_transactions", "warning"),
    ],
)
def test_it_alerts_from_the_threshold_on_and_says_what_to_do(
    measured: Figures, change: Callable[[Figures, Any], None], fine: Any, wrong: Any, code: str, level: str
) -> None:
    below, beyond = dict(measured), dict(measured)
    change(below, fine)
    change(beyond, wrong)

    quiet = alerts_of(below, None, monitor_settings())
    loud = [alert for alert in alerts_of(beyond, None, monitor_settings()) if alert.code == code]

    assert code not in {alert.code for alert in quiet}
    assert [(alert.level, bool(alert.message and alert.recommendation)) for alert in loud] == [(level, True)]
    assert loud[0].recommendation in recommendations_of(loud, None, beyond)


@pytest.fixture
def slot(transactional_db: None) -> Iterator[str]:
    """A replication slot that nobody reads, and more than a megabyte of WAL since."""
    name = f"unread_{connection.settings_dict['NAME']}"
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_create_physical_replication_slot(%s, true)", [name])
    try:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT count(pg_logical_emit_message(false, 'test', repeat('x', 100000))) FROM generate_series(1, 12)"
            )
            # What was not written yet does not count; the end of a segment is, at once.
            cursor.execute("SELECT pg_switch_wal()")
        yield name
    finally:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_drop_replication_slot(%s)", [name])


def test_it_sees_a_slot_that_holds_back_wal(slot: str, settings: Any) -> None:
    settings.DB_ALERT_SLOT_MEGABYTES = 1

    found = database_health()

    (alert,) = [alert for alert in found["alerts"] if slot in alert["message"]]
    assert (alert["code"], alert["level"]) == ("replication_slot_retains_wal", "critical")
    assert found["summary"]["status"] == "unhealthy"
    assert any(slot in text for text in found["recommendations"])


@pytest.fixture
def goods(transactional_db: None) -> Iterator[None]:
    """A table of which most rows were deleted, with an index that nothing reads."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            CREATE TABLE goods (id int PRIMARY KEY, name text) WITH (autovacuum_enabled = false);
            INSERT INTO goods SELECT n, repeat('x', 90) || n FROM generate_series(1, 16000) n;
            CREATE INDEX goods_name ON goods (name);
            DELETE FROM goods WHERE id > 4000
            """
        )
        # Counters are handed over once a second at most unless told to; those that come after ANALYZE are added to it.
        cursor.execute("SELECT pg_stat_force_next_flush()")
        cursor.execute("ANALYZE goods")
    yield
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE goods")


def test_it_sees_dead_rows_bloat_and_an_index_that_nothing_reads(goods: None) -> None:
    figures = figures_now(deep=True)

    found = alerts_of(figures, None, monitor_settings())
    advice = recommendations_of(found, None, figures)

    (table,) = [row for row in figures["tables"] if row["table"] == "goods"]
    assert (table["live_rows"], table["dead_rows"]) == (4000, 12000)
    assert 60 < table["bloat_percent"] < 90
    assert [row["index"] for row in figures["unused_indexes"] if row["table"] == "goods"] == ["goods_name"]
    assert any(alert.code == "dead_rows" and "goods" in alert.message for alert in found)
    assert any("goods_name" in text for text in advice)
