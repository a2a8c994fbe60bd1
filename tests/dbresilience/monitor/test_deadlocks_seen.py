from __future__ import annotations

import pytest
from django.db import connection
from django.utils import timezone

from dbresilience.deadlocks.seen import fingerprint_of, waits_of
from dbresilience.deadlocks.statistics import lock_order
from dbresilience.models import Deadlock, Tally
from dbresilience.monitor.connection import monitor_connection
from dbresilience.monitor.figures import DAY
from dbresilience.monitor.health import deadlocks_now
from dbresilience.observations.names import TallyName
from dbresilience.observations.writer import observations_write
from dbresilience.statements import normalised, table_of
from tests.dbresilience.monitor.deadlock import lock_in_reverse

pytestmark = [pytest.mark.feature("A6", "B6")]

ANN = "UPDATE account SET email = 'canary' || id, balance = balance - 1 WHERE id = 1"
BANK = "UPDATE bank SET id = id WHERE id = 5"


@pytest.fixture(autouse=True)
def short_waits(settings: object) -> None:
    settings.DB_RETRY_BASE_DELAY = 0.01  # type: ignore[attr-defined]


@pytest.fixture
def bank(accounts: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO bank VALUES (5)")


def test_it_names_both_tables_and_statements_without_values(bank: None) -> None:
    errors = lock_in_reverse([ANN, BANK], [BANK, ANN])

    observations_write()

    assert errors == []
    row = Deadlock.objects.get()
    assert row.tables == ["account", "bank"]
    assert {row.held_table, row.waited_table} == {"account", "bank"}
    assert {row.held_statement, row.waited_statement} == {
        "UPDATE account SET email = ? || id, balance = balance - ? WHERE id = ?",
        "UPDATE bank SET id = id WHERE id = ?",
    }
    assert row.processes == 2
    assert [lock["mode"] for lock in row.locks] == ["ShareLock", "ShareLock"]
    assert "tests.dbresilience.monitor.deadlock" in row.code
    assert "canary" not in str(Deadlock.objects.values())


def test_it_counts_the_recovery(bank: None) -> None:
    lock_in_reverse([ANN, BANK], [BANK, ANN])

    observations_write()

    assert Tally.objects.get(name=TallyName.RETRY_RECOVERED).key == "40P01"
    assert Tally.objects.get(name=TallyName.ERROR).key == "40P01"
    assert not Tally.objects.filter(name=TallyName.RETRY_GIVEN_UP).exists()


def test_it_sees_a_deadlock_outside_of_any_retry_too(bank: None) -> None:
    errors = lock_in_reverse([ANN, BANK], [BANK, ANN], retried=False)

    observations_write()

    assert len(errors) == 1
    assert Deadlock.objects.get().tables == ["account", "bank"]


def test_it_knows_the_tables_of_table_locks(accounts: str) -> None:
    lock_in_reverse(
        ["LOCK TABLE account IN EXCLUSIVE MODE", "LOCK TABLE bank IN EXCLUSIVE MODE"],
        ["LOCK TABLE bank IN EXCLUSIVE MODE", "LOCK TABLE account IN EXCLUSIVE MODE"],
    )

    observations_write()

    row = Deadlock.objects.get()
    assert row.tables == ["account", "bank"]
    assert sorted(lock["on"] for lock in row.locks) == ["account", "bank"]


def test_it_tells_of_one_table_whose_rows_were_locked_in_opposite_order(accounts: str) -> None:
    other = ANN.replace("id = 1", "id = 2")
    lock_in_reverse([ANN, other], [other, ANN])

    observations_write()

    assert Deadlock.objects.get().tables == ["account"]


def test_it_gives_one_name_to_both_sides_of_a_pair() -> None:
    assert fingerprint_of(["a", "b"], "x", "y") == fingerprint_of(["a", "b"], "y", "x")
    assert fingerprint_of(["a", "b"], "x", "y") != fingerprint_of(["a", "c"], "x", "y")


def test_it_shows_of_a_pair_what_one_victim_held_and_waited_for() -> None:
    sides = [("account", "UPDATE account", "bank", "UPDATE bank"), ("bank", "UPDATE bank", "account", "UPDATE account")]
    names = ("held_table", "held_statement", "waited_table", "waited_statement")
    for side in sides:
        victim = dict(zip(names, side, strict=True))
        Deadlock.objects.create(at=timezone.now(), tables=["account", "bank"], fingerprint="f", processes=2, **victim)

    found = deadlocks_now(DAY)

    assert found is not None
    (group,) = found["groups"]
    assert group["count"] == 2
    assert tuple(group[name] for name in names) in sides


def test_it_orders_tables_by_name_where_none_refers_to_another() -> None:
    with monitor_connection() as session:
        order = lock_order(session, ["shop_order", "shop_article", "shop_customer"])

    assert order == ["shop_article", "shop_customer", "shop_order"]


def test_it_reads_every_line_of_the_servers_account() -> None:
    waits = waits_of(
        "Process 11 waits for ShareLock on transaction 800; blocked by process 12.\n"
        "Process 12 waits for AccessExclusiveLock on relation 16390 of database 5; blocked by process 13.\n"
        "Process 13 waits for ExclusiveLock on tuple (0,7) of relation 99 of database 5; blocked by process 14.\n"
        "Process 14 waits for ExclusiveLock on advisory lock [5,0,42,1]; blocked by process 11."
    )

    assert [(wait.pid, wait.mode, wait.relation, wait.kind, wait.blocker) for wait in waits] == [
        (11, "ShareLock", None, "transaction", 12),
        (12, "AccessExclusiveLock", 16390, "relation", 13),
        (13, "ExclusiveLock", 99, "tuple", 14),
        (14, "ExclusiveLock", None, "advisory lock", 11),
    ]


@pytest.mark.parametrize(
    ("statement", "expected", "table"),
    [
        ("SELECT * FROM a WHERE id IN (1, 2,3) FOR UPDATE", "SELECT * FROM a WHERE id IN (?…) FOR UPDATE", "a"),
        ("UPDATE \"a\" SET x = 'it''s', y = E'\\'q' WHERE z = -1.5e3", 'UPDATE "a" SET x = ?, y = ? WHERE z = ?', "a"),
        ("INSERT INTO public.o (a) VALUES (1, 'x'), (2, 'y')", "INSERT INTO public.o (a) VALUES (?…)", "o"),
        ("DELETE FROM ONLY c -- 4111111111111111\n WHERE t1 = $1", "DELETE FROM ONLY c WHERE t1 = ?", "c"),
        ("SELECT $x$ secret $x$, 'cut off in the midd", "SELECT ?, ?", ""),
        (
            "SELECT 1 FROM a FOR NO KEY UPDATE; UPDATE s.b SET x=1",
            "SELECT ? FROM a FOR NO KEY UPDATE; UPDATE s.b SET x=?",
            "s.b",
        ),
        ("UPDATE a SET x = %s WHERE y = %(y)s", "UPDATE a SET x = ? WHERE y = ?", "a"),
    ],
)
def test_it_takes_every_value_out_of_a_statement(statement: str, expected: str, table: str) -> None:
    found = normalised(statement)

    assert found == expected
    assert table_of(found) == table


def test_it_shortens_a_statement_without_end() -> None:
    assert len(normalised("SELECT " + "column_name, " * 10_000)) == 500
