from __future__ import annotations

import time

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import IntegrityError, connection, transaction

from dbresilience.conf import retry_settings
from dbresilience.constraints import ConstraintViolation, constraint_violation

pytestmark = [pytest.mark.feature("A5", "B5"), pytest.mark.usefixtures("transactional_db")]


def violation(sql: str) -> ConstraintViolation:
    with pytest.raises(IntegrityError) as caught, transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(sql)
    return constraint_violation(caught.value)


@pytest.mark.parametrize(
    ("sql", "kind", "code", "columns", "constraint"),
    [
        ("INSERT INTO account (id, owner) VALUES (1, 'x')", "unique", "duplicate_entry", ("id",), "account_pkey"),
        (
            "INSERT INTO account (id, owner, email) VALUES (3, 'x', 'ANN@example.com')",
            "unique",
            "duplicate_entry",
            ("email",),
            "account_email_uniq",
        ),
        ("INSERT INTO account (id) VALUES (3)", "not_null", "required_field", ("owner",), ""),
        (
            "UPDATE account SET balance = -1",
            "check",
            "invalid_value",
            ("balance",),
            "account_balance_positive",
        ),
        ("UPDATE account SET bank_id = 9", "foreign_key", "invalid_reference", ("bank_id",), "account_bank"),
        (
            "INSERT INTO account (id, owner, during) VALUES (3, 'x', '[1,5)'), (4, 'x', '[4,9)')",
            "exclusion",
            "conflicting_range",
            ("owner", "during"),
            "account_during_excl",
        ),
    ],
)
def test_it_names_class_table_and_columns(
    accounts: str, sql: str, kind: str, code: str, columns: tuple[str, ...], constraint: str
) -> None:
    found = violation(sql)

    assert (found.kind, found.code, found.table) == (kind, code, "account")
    assert found.columns == columns
    assert found.constraint == constraint


def test_it_never_shows_a_value_of_a_row(accounts: str) -> None:
    found = violation("INSERT INTO account (id, owner, email) VALUES (3, 'x', 'ann@example.com')")

    assert "ann" not in repr(found).lower().replace("another", "")


def test_it_names_the_columns_while_the_failed_transaction_is_still_open(accounts: str) -> None:
    with pytest.raises(transaction.TransactionManagementError), transaction.atomic():
        try:
            with connection.cursor() as cursor:
                cursor.execute("UPDATE account SET owner = 'x', during = '[1,5)'")
        except IntegrityError as exc:
            found = constraint_violation(exc)
        transaction.set_rollback(True)
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")

    assert (found.kind, found.columns) == ("exclusion", ("owner", "during"))


def test_it_translates_a_deferred_constraint_at_commit(accounts: str) -> None:
    with pytest.raises(IntegrityError) as caught, transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("UPDATE account SET bank_id = 9")

    found = constraint_violation(caught.value)

    assert (found.kind, found.table, found.columns) == ("foreign_key", "account", ("bank_id",))


def test_it_says_what_to_do_about_it(accounts: str) -> None:
    taken = violation("INSERT INTO account (id, owner, email) VALUES (3, 'x', 'ann@example.com')")
    missing = violation("INSERT INTO account (id) VALUES (3)")

    assert taken.suggestion == "Use the record that has this email already, or send another email."
    assert missing.suggestion == "Send a value for owner."


def test_it_calls_what_is_no_violation_unknown() -> None:
    found = constraint_violation(IntegrityError("value 'ann' of somebody else's making"))

    assert (found.kind, found.code, found.columns) == ("unknown", "invalid_value", ())
    assert "ann" not in repr(found).lower()


def test_it_translates_within_a_millisecond(accounts: str) -> None:
    with pytest.raises(IntegrityError) as caught, transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("INSERT INTO account (id, owner) VALUES (1, 'x')")
    durations = []

    for _ in range(101):
        started = time.thread_time()
        constraint_violation(caught.value)
        durations.append(time.thread_time() - started)

    assert sorted(durations)[50] < 0.001


def test_it_reads_no_catalogue_in_a_failed_transaction(accounts: str) -> None:
    with pytest.raises(transaction.TransactionManagementError), transaction.atomic():
        try:
            with connection.cursor() as cursor:
                cursor.execute("UPDATE account SET balance = -2")
        except IntegrityError as exc:
            transaction.set_rollback(True)
            found = constraint_violation(exc)
            assert found.kind == "check"
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")


@pytest.mark.parametrize(("name", "value"), [("DB_MAX_RETRIES", "many"), ("DB_RETRY_MAX_DELAY", 31)])
def test_it_refuses_a_setting_that_is_out_of_range(settings: object, name: str, value: object) -> None:
    setattr(settings, name, value)

    with pytest.raises(ImproperlyConfigured, match=name):
        retry_settings()
