from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from io import StringIO
from typing import Any

import psycopg
import pytest
from django.core.management import call_command
from django.db import connection
from django.utils import timezone

from dbresilience.models import ProcessReport, Tally

pytestmark = [pytest.mark.feature("B8", "B2")]

NAMES = ("db_health", "db_diagnose", "db_pool", "db_locks")
POOL: dict[str, Any] = {
    **dict.fromkeys(("idle", "overflow", "waiting", "requests", "timeouts", "lost"), 0),
    "alias": "default",
    "size": 2,
    "max_overflow": 0,
    "open": 2,
    "borrowed": 2,
    "utilisation": 1.0,
    "wait": {"p50": 1.0, "p95": 2.0, "p99": 3.25},
    "hold": {"p50": None, "p95": None, "p99": None},
}


def run(name: str, *flags: str) -> tuple[int, str]:
    output = StringIO()
    try:
        call_command(name, *flags, stdout=output)
    except SystemExit as exc:
        return int(str(exc.code)), output.getvalue()
    return 0, output.getvalue()


@pytest.fixture
def away() -> Iterator[None]:
    name = connection.settings_dict["NAME"]
    connection.settings_dict["NAME"] = "no_such_database"
    yield
    connection.settings_dict["NAME"] = name


@pytest.mark.parametrize("name", NAMES)
def test_it_is_quiet_when_all_is_fine(name: str) -> None:
    status, text = run(name)
    json_status, document = run(name, "--json")

    assert (status, json_status) == (0, 0)
    assert text.strip()
    assert isinstance(json.loads(document), dict)


@pytest.mark.parametrize("name", NAMES)
def test_it_says_that_the_database_is_away(away: None, name: str) -> None:
    status, text = run(name)
    json_status, document = run(name, "--json")

    assert (status, json_status) == (2, 2)
    assert "does not answer" in text
    assert json.loads(document)


def test_it_warns_with_a_status_and_names_what_to_do(settings: Any) -> None:
    settings.DB_ALERT_ERRORS_PER_HOUR = 3
    Tally.objects.create(span=timezone.now(), name="error", key="57014", count=3)

    health, diagnosis = run("db_health"), run("db_diagnose")

    assert (health[0], diagnosis[0]) == (1, 1)
    assert "3 errors in the last hour, most of them 57014" in health[1]
    assert "recommended:" in diagnosis[1]


def test_it_shows_a_share_in_percent_beside_the_others() -> None:
    names = {"retry_recovered": 3, "retry_given_up": 1}
    Tally.objects.bulk_create(Tally(span=timezone.now(), name=name, key="", count=n) for name, n in names.items())

    _, text = run("db_health")

    assert "retries came through     75.0 %" in text


def test_it_shows_every_process_with_a_pool() -> None:
    ProcessReport.objects.create(process="web:7:1", role="gunicorn", reported_at=timezone.now(), pools=[POOL])

    status, text = run("db_pool")

    assert status == 1
    assert "gunicorn" in text
    assert "3.25" in text


def test_it_shows_who_blocks_whom(accounts: str) -> None:
    parameters = connection.get_connection_params()
    known = {key: parameters[key] for key in ("host", "port", "user", "dbname")}
    with psycopg.connect(**known) as holder, psycopg.connect(**known) as waiter:
        holder.execute("UPDATE account SET owner = 'canary' WHERE id = 1")
        thread = threading.Thread(target=waiter.execute, args=("UPDATE account SET owner = 'b' WHERE id = 1",))
        thread.start()
        with psycopg.connect(**known, autocommit=True) as watch:
            waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            while watch.execute(waits).fetchone() == (0,):
                watch.execute("SELECT pg_sleep(0.01)")

        status, text = run("db_locks")

        pid = holder.info.backend_pid
        holder.rollback()
        thread.join()
        waiter.rollback()
    assert status == 1
    assert str(pid) in text
    assert "UPDATE account SET owner = ? WHERE id = ?" in text
    assert "canary" not in text
