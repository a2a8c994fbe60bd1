from __future__ import annotations

import pytest
from django.db import DatabaseError, connection

from dbresilience.error_texts import error_text, traceback_text

pytestmark = [pytest.mark.django_db, pytest.mark.feature("A16", "H8")]

SECRET = "ada@example.com"
STATEMENTS = {
    "not null": f"CREATE TEMP TABLE t (a int NOT NULL, e text) ON COMMIT DROP; INSERT INTO t VALUES (NULL, '{SECRET}')",
    "unique": f"CREATE TEMP TABLE t (e text UNIQUE) ON COMMIT DROP; INSERT INTO t VALUES ('{SECRET}'), ('{SECRET}')",
    "check": f"CREATE TEMP TABLE t (e text CHECK (e = '')) ON COMMIT DROP; INSERT INTO t VALUES ('{SECRET}')",
}


def failure(kind: str) -> Exception:
    try:
        with connection.cursor() as cursor:
            cursor.execute(STATEMENTS[kind])
    except DatabaseError as exc:
        return exc
    raise AssertionError(kind)


@pytest.mark.parametrize("kind", STATEMENTS)
def test_it_keeps_the_message_of_a_database_error_and_no_row(kind: str) -> None:
    exc = failure(kind)

    text, trace = error_text(exc), traceback_text(exc)

    assert SECRET in str(exc)
    assert "violates" in text
    assert SECRET not in text + trace
    assert "DETAIL" not in text + trace
    assert trace.count("Traceback (most recent call last)") == 2
    assert "direct cause" in trace
    assert f"IntegrityError: {text}" in trace


def test_it_keeps_what_others_say_and_what_led_to_it() -> None:
    try:
        try:
            raise failure("unique")
        except DatabaseError:
            raise ValueError("two of them")  # noqa: B904 - what is tested is the context that Python adds
    except ValueError as exc:
        text, trace = error_text(exc), traceback_text(exc)

    assert text == "two of them"
    assert trace.endswith("ValueError: two of them\n")
    assert "During handling of the above exception" in trace
    assert SECRET not in trace


def test_it_ends_at_a_circle_of_causes() -> None:
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first

    assert traceback_text(first).count("ValueError") == 2
