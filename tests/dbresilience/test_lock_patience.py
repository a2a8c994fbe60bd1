from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from typing import Any

import psycopg
import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import ProgrammingError, connection, migrations, models, transaction
from django.db.migrations.state import ProjectState

from dbresilience.conf import lock_settings
from dbresilience.errors import LocksNotGranted
from dbresilience.lock_patience import PatientExecutor, with_lock_patience
from tests.dbresilience.backends import other_session

pytestmark = [pytest.mark.feature("B1", "B6"), pytest.mark.usefixtures("transactional_db")]


@pytest.fixture(autouse=True)
def short_waits(settings: Any) -> None:
    settings.DB_MIGRATION_LOCK_TIMEOUT = 0.02
    settings.DB_MIGRATION_LOCK_TIMEOUT_MAX = 0.1


@contextmanager
def reader() -> Iterator[psycopg.Connection[Any]]:
    """A session with an open transaction that has read the accounts."""
    parameters = connection.get_connection_params()
    known = {key: parameters[key] for key in ("host", "port", "user", "dbname")}
    with psycopg.connect(**known, application_name="slow reader") as session:
        session.execute("SELECT * FROM account")
        yield session
        session.rollback()


def alter() -> None:
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE account ADD COLUMN added int")


def columns() -> set[str]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT attname FROM pg_attribute WHERE attrelid = 'account'::regclass AND attnum > 0")
        return {row[0] for row in cursor.fetchall()}


def test_it_gets_its_lock_when_the_reader_is_gone(accounts: str) -> None:
    waits: list[float] = []

    with reader() as session:

        def sleep(seconds: float) -> None:
            waits.append(seconds)
            if len(waits) == 3:
                session.rollback()

        with_lock_patience(alter, sleep=sleep)

    assert len(waits) == 3
    assert "added" in columns()


def test_it_waits_longer_each_time_and_never_longer_than_the_limit(accounts: str, settings: Any) -> None:
    settings.DB_MIGRATION_LOCK_ATTEMPTS = 9
    waits: list[float] = []

    with reader(), pytest.raises(LocksNotGranted) as caught:
        with_lock_patience(alter, sleep=waits.append)

    assert len(waits) == 8
    assert waits[0] < 0.041
    assert max(waits) <= 0.2
    assert waits[-1] >= 0.1
    assert "slow reader" in str(caught.value)
    assert "added" not in columns()


def test_the_command_says_in_one_line_who_holds_the_locks(settings: Any, caplog: pytest.LogCaptureFixture) -> None:
    settings.DB_MIGRATION_LOCK_ATTEMPTS = 2
    with other_session(connection.settings_dict) as session, caplog.at_level(logging.WARNING):
        # That the first one was unapplied cannot be written down, so none is.
        session.execute("SET application_name = 'slow reader'; BEGIN; LOCK TABLE django_migrations IN SHARE MODE")

        with pytest.raises(CommandError, match=r"did not get its locks.*slow reader.*") as caught:
            call_command("migrate", "dbresilience", "zero", stdout=StringIO(), verbosity=0)

    assert "\n" not in str(caught.value)
    assert [record.msg["attempt"] for record in caplog.records if record.msg["event"] == "lock_not_granted"] == [1]


def test_it_lets_others_read_between_its_attempts(accounts: str) -> None:
    """The proof of what it is for: whoever comes while it sleeps is served at once, though the lock is still wanted."""
    with reader() as first, reader() as other:
        other.rollback()

        def sleep(_: float) -> None:
            other.execute("SET lock_timeout = '1ms'; SELECT * FROM account")
            other.rollback()
            first.rollback()

        with_lock_patience(alter, sleep=sleep)

    assert "added" in columns()


def test_it_leaves_no_time_out_behind(accounts: str) -> None:
    with_lock_patience(alter)

    with connection.cursor() as cursor:
        cursor.execute("SHOW lock_timeout")
        assert cursor.fetchone() == ("0",)


def test_it_repeats_nothing_else(accounts: str) -> None:
    runs: list[int] = []

    def fail() -> None:
        runs.append(1)
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE no_such_table ADD COLUMN x int")

    with pytest.raises(ProgrammingError):
        with_lock_patience(fail)

    assert len(runs) == 1


class AddColumns(migrations.Migration):
    operations = [
        migrations.CreateModel("Thing", [("id", models.BigAutoField(primary_key=True))]),
        migrations.RunSQL("ALTER TABLE account ADD COLUMN added int", "ALTER TABLE account DROP COLUMN added"),
    ]


class Concurrently(AddColumns):
    atomic = False
    operations = [migrations.RunSQL("CREATE INDEX CONCURRENTLY account_owner_idx ON account (owner)")]


def test_it_applies_and_unapplies_a_migration_whole_when_it_is_repeated(accounts: str) -> None:
    told: list[str] = []
    executor = PatientExecutor(connection, lambda action, *_: told.append(action))
    before, migration = ProjectState(), AddColumns("0001_thing", "dbresilience_tests")

    with reader() as session:
        release = threading.Timer(0.15, session.rollback)
        release.start()
        after = executor.apply_migration(before, migration)
        release.join()

    assert told == ["apply_start", "apply_success"]
    assert ("dbresilience_tests", "thing") in after.models
    assert ("dbresilience_tests", "thing") not in before.models
    assert "added" in columns()
    assert ("dbresilience_tests", "0001_thing") in executor.recorder.applied_migrations()

    executor.unapply_migration(ProjectState(), migration)

    assert "added" not in columns()
    assert ("dbresilience_tests", "0001_thing") not in executor.recorder.applied_migrations()


def test_it_begins_a_migration_that_is_not_atomic_once(accounts: str) -> None:
    executor = PatientExecutor(connection)
    migration = Concurrently("0002_index", "dbresilience_tests")

    executor.apply_migration(ProjectState(), migration)

    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_indexes WHERE indexname = 'account_owner_idx'")
        assert cursor.fetchone() == (1,)
    executor.recorder.record_unapplied("dbresilience_tests", "0002_index")


def test_it_repeats_nothing_inside_a_transaction(accounts: str, settings: Any) -> None:
    settings.DB_MIGRATION_LOCK_TIMEOUT = 0.02
    executor = PatientExecutor(connection)

    with transaction.atomic():
        executor.apply_migration(ProjectState(), AddColumns("0001_thing", "dbresilience_tests"))
        transaction.set_rollback(True)

    assert "added" not in columns()


def test_it_is_what_manage_py_migrate_runs() -> None:
    output = StringIO()

    call_command("migrate", stdout=output, verbosity=1)

    assert "No migrations to apply" in output.getvalue()
    from django.core.management import get_commands

    assert get_commands()["migrate"] == "dbresilience"


@pytest.mark.parametrize(
    ("name", "value"),
    [("DB_MIGRATION_LOCK_TIMEOUT", -1), ("DB_MIGRATION_LOCK_TIMEOUT", 7), ("DB_MIGRATION_LOCK_ATTEMPTS", 1.5)],
)
def test_it_refuses_a_bad_setting_by_its_name(settings: Any, name: str, value: float) -> None:
    setattr(settings, name, value)

    with pytest.raises(ImproperlyConfigured, match=name):
        lock_settings()
