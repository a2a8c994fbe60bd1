"""The tables of some apps can be made before those of others are there."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from django.db import connection

from operations.roles import OWN_APPS

MIGRATE = """
import sys, django
django.setup()
from django.core.management import call_command
from django.db import connection
for app in sys.argv[1:]:
    call_command("migrate", app, verbosity=0)
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM django_migrations WHERE app = %s", [app])
        print(app, cursor.fetchone()[0] > 0, "auth_group" in connection.introspection.table_names())
"""


@pytest.fixture
def empty(transactional_db: None) -> Iterator[str]:
    """The address of an empty database."""
    name = f"{connection.settings_dict['NAME']}_alone"
    with connection.cursor() as cursor:
        cursor.execute(f'CREATE DATABASE "{name}" TEMPLATE template0')
    yield urlsplit(os.environ["DATABASE_URL"])._replace(path=f"/{name}").geturl()
    with connection.cursor() as cursor:
        cursor.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.mark.feature("F2", "F5")
def test_each_apps_tables_can_be_made_where_nobody_can_log_in_yet(empty: str) -> None:
    apps = sorted(OWN_APPS)

    ended = subprocess.run(
        [sys.executable, "-c", MIGRATE, *apps],
        env={**os.environ, "DATABASE_URL": empty, "DJANGO_SETTINGS_MODULE": "zenskar.settings"},
        capture_output=True,
        text=True,
        timeout=120,
    )

    assert ended.returncode == 0, ended.stderr
    made = [line.split() for line in ended.stdout.splitlines()]
    assert [app for app, _, _ in made] == apps
    assert all(there == "True" for _, there, _ in made)
    # None of them brings the tables of people and roles with it.
    assert {login for _, _, login in made} == {"False"}
