from __future__ import annotations

import os

import psycopg
import pytest
from django.conf import settings
from django.db import connection
from pytest_django.plugin import DjangoDbBlocker

from tests import emptying
from tests.clusters import MIGRATED

LAST_POSITION = 7_000_000
"""Of the log that a test finds: no test may hold for true that its first event has the first position."""


def pytest_configure() -> None:
    # Each test client builds the middleware anew; looking for a static file when it is asked for spares each of them
    # the reading of all of them.
    settings.WHITENOISE_AUTOREFRESH = True
    # Figures are made anew for each request: what a test just did is in them. Tests of the cache switch it on.
    settings.OUTBOX_STATISTICS_SECONDS = 0
    # A good hash of a password takes half a second, as it should, for each user that a test makes.
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Tests that may last longer than others begin first, or one of them would be all that runs in the end.
    items.sort(key=lambda item: item.get_closest_marker("timeout") is None)


@pytest.fixture(scope="session")
def django_db_modify_db_settings(django_db_modify_db_settings: None) -> None:
    """The database is a copy of the one with all tables, where the run made one."""
    server, _, _ = os.environ["DATABASE_URL"].rpartition("/")
    with psycopg.connect(f"{server}/postgres", autocommit=True) as session:
        if session.execute("SELECT FROM pg_database WHERE datname = %s", [MIGRATED]).fetchone() is not None:
            connection.settings_dict["TEST"]["TEMPLATE"] = MIGRATED


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> None:
    """Django's, then a log that is not new, and the rows to which the database is put back after each test."""
    with django_db_blocker.unblock(), connection.cursor() as cursor:
        cursor.execute("SELECT setval('outbox_log_position_seq', %s)", [LAST_POSITION])
        cursor.execute("SELECT setval('outbox_event_id_seq', 3000000)")
        emptying.rows_keep()
    emptying.install()
