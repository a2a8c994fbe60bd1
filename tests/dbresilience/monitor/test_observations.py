from __future__ import annotations

import os
import threading

import psycopg
import pytest
from django.db import IntegrityError, ProgrammingError, connection, transaction

from dbresilience.constraints import constraint_violation
from dbresilience.models import Tally, ViolationTally
from dbresilience.observations.names import TallyName
from dbresilience.observations.pending import MOST_KEYS, Batch, pending
from dbresilience.observations.statements import trail_of
from dbresilience.observations.writer import observations_write
from dbresilience.transactions import run_in_transaction
from tests.dbresilience.backends import pooled_alias

pytestmark = [pytest.mark.feature("B5", "B8")]


def execute(sql: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql)


def violate(sql: str) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        execute(sql)


def test_it_counts_violations_by_constraint_without_values(accounts: str) -> None:
    for _ in range(3):
        violate("INSERT INTO account (id, owner, email) VALUES (3, 'x', 'ann@example.com')")
    violate("INSERT INTO account (id) VALUES (4)")

    observations_write()

    found = {
        (row.kind, row.table, row.constraint, tuple(row.columns)): row.count for row in ViolationTally.objects.all()
    }
    assert found == {
        ("unique", "account", "account_email_uniq", ("email",)): 3,
        ("not_null", "account", "", ("owner",)): 1,
    }
    assert "ann@" not in str(list(ViolationTally.objects.values()))


def test_it_counts_a_deferred_violation_when_it_is_translated_and_once(accounts: str) -> None:
    with pytest.raises(IntegrityError) as caught, transaction.atomic():
        execute("UPDATE account SET bank_id = 9")

    first, second = constraint_violation(caught.value), constraint_violation(caught.value)
    observations_write()

    assert first == second
    row = ViolationTally.objects.get()
    assert (row.kind, row.constraint, row.columns, row.count) == ("foreign_key", "account_bank", ["bank_id"], 1)


def test_it_adds_up_over_writings_and_processes(accounts: str) -> None:
    violate("UPDATE account SET balance = -1")
    observations_write()
    violate("UPDATE account SET balance = -1")
    observations_write()

    assert ViolationTally.objects.get().count == 2
    assert Tally.objects.get(name=TallyName.ERROR, key="23514").count == 2


def test_it_counts_errors_by_sqlstate() -> None:
    with pytest.raises(ProgrammingError):
        execute("SELECT * FROM no_such_table")

    observations_write()

    assert Tally.objects.get(name=TallyName.ERROR).key == "42P01"


def test_it_times_statements_and_names_slow_ones_without_values(settings: object) -> None:
    settings.DB_SLOW_QUERY_MS = 20  # type: ignore[attr-defined]
    with pooled_alias():
        execute("SELECT pg_sleep(0.03), 'secret'")
        execute("SELECT 1")
        observations_write()

    slow = Tally.objects.get(name=TallyName.SLOW_STATEMENT, key="SELECT pg_sleep(?), ?")
    assert slow.slowest >= 30_000
    assert Tally.objects.get(name=TallyName.STATEMENT).count >= 2


def test_it_keeps_the_trail_of_the_transaction_alone() -> None:
    execute("SELECT 'before'")
    with transaction.atomic():
        execute("SELECT 'first'")
        execute("SELECT 'second'")

        trail = trail_of(connection)

    assert trail == ("SELECT 'first'", "SELECT 'second'")


@pytest.mark.parametrize("binding", [False, True])
def test_it_observes_a_result_that_is_read_in_pieces(binding: bool) -> None:
    with pooled_alias() as wrapper:
        wrapper.settings_dict["OPTIONS"]["server_side_binding"] = binding
        with pytest.raises(ProgrammingError), wrapper.chunked_cursor() as cursor:
            cursor.execute("SELECT * FROM no_such_table")
        with transaction.atomic(), wrapper.chunked_cursor() as cursor:
            cursor.execute("SELECT %s", [1])
            found, trail = cursor.fetchone(), trail_of(wrapper)
        observations_write()

    assert (found, trail) == ((1,), ("SELECT %s",))
    assert Tally.objects.get(name=TallyName.ERROR, key="42P01").count == 1
    assert Tally.objects.get(name=TallyName.STATEMENT).count >= 2


def test_it_forgets_the_trail_when_another_transaction_begins() -> None:
    run_in_transaction(lambda: execute("SELECT 'one'"))

    trails = []
    run_in_transaction(lambda: (execute("SELECT 'two'"), trails.append(trail_of(connection))))

    assert trails == [("SELECT 'two'",)]


def test_it_keeps_what_it_cannot_write_until_the_database_is_back(accounts: str) -> None:
    violate("UPDATE account SET balance = -1")
    name = connection.settings_dict["NAME"]
    connection.settings_dict["NAME"] = "no_such_database"
    try:
        with pytest.raises(psycopg.OperationalError):
            observations_write()
    finally:
        connection.settings_dict["NAME"] = name
    violate("UPDATE account SET balance = -1")

    observations_write()

    assert ViolationTally.objects.get().count == 2


def test_it_loses_no_count_between_threads_that_count_and_one_that_writes() -> None:
    threads = [
        threading.Thread(target=lambda: [pending.count(TallyName.ERROR, "XX000") for _ in range(500)]) for _ in range(4)
    ]

    for thread in threads:
        thread.start()
    for _ in range(3):
        observations_write()
    for thread in threads:
        thread.join()
    observations_write()

    assert Tally.objects.filter(name=TallyName.ERROR, key="XX000").get().count == 2000


def test_it_bounds_what_waits_and_says_how_much_it_dropped() -> None:
    batch = Batch()

    for number in range(MOST_KEYS + 7):
        batch.add((0, "error", str(number)), 1, 0, 0)

    assert len(batch.tallies) == MOST_KEYS + 1
    assert batch.tallies[(0, TallyName.UNRECORDED.value, "")][0] == 7


def test_it_leaves_the_parents_counts_to_the_parent() -> None:
    pending.count(TallyName.ERROR, "XX001")
    reader, writer = os.pipe()

    child = os.fork()
    if child == 0:
        os.write(writer, b"1" if pending else b"0")
        os._exit(0)
    os.waitpid(child, 0)

    assert os.read(reader, 1) == b"0"
    assert pending
