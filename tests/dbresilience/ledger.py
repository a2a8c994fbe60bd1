"""Statements on the table that the fixture ``ledger`` makes."""

from __future__ import annotations

from django.db import connection

from tests.dbresilience.backends import other_session


def enter(entry: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO ledger VALUES (%s)", [entry])


def entries() -> list[int]:
    """What was committed, as another session sees it."""
    with other_session() as session:
        return [row[0] for row in session.execute("SELECT entry FROM ledger ORDER BY entry").fetchall()]


def fail(sqlstate: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"DO $$ BEGIN RAISE EXCEPTION SQLSTATE '{sqlstate}'; END $$")
