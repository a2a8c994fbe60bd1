"""What one phase of a transaction leaves to the next: its beginning, its end, what waits for it, the one after it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from django.db import Error, OperationalError, connection, transaction

from dbresilience import turns
from dbresilience.errors import CommitUnknown, ConnectionLost, DeadlineExceeded, LockHeld, NestedTransaction
from dbresilience.timeouts import without_command_timeout
from dbresilience.transactions import deadlock_retries, run_in_transaction, unrepeatable
from tests.dbresilience.backends import in_threads, one, other_session, pool_of, pooled_alias, terminate
from tests.dbresilience.ledger import enter, entries, fail
from tests.dbresilience.proxy import Proxy

pytestmark = [pytest.mark.feature("A4", "B4", "B7"), pytest.mark.usefixtures("ledger")]


@pytest.fixture(autouse=True)
def short_waits(settings: Any) -> None:
    settings.DB_RETRY_BASE_DELAY = 0.01


@pytest.fixture
def lock_held() -> Iterator[int]:
    with other_session() as session, session.transaction():
        session.execute("SELECT pg_advisory_xact_lock(7)")
        yield 7


@pytest.mark.parametrize("pool", [True, False])
def test_it_leaves_no_deadline_when_a_rollback_was_asked_for(pool: bool) -> None:
    with pooled_alias(pool=pool):
        run_in_transaction(lambda: transaction.set_rollback(True), deadline=60)

        assert connection.connection.deadline is None


@pytest.mark.parametrize("pool", [True, False])
def test_it_leaves_no_deadline_when_it_did_not_begin(pool: bool, lock_held: int) -> None:
    with pooled_alias(pool=pool):
        with pytest.raises(LockHeld):
            run_in_transaction(lambda: None, lock=lock_held, deadline=60)

        assert connection.connection.deadline is None


def test_it_touches_no_deadline_of_who_has_the_session_next() -> None:
    taken: list[Any] = []

    def give_back() -> None:
        connection.close()
        taken.append(pool_of(wrapper).getconn())
        taken[0].deadline = 4711.0

    with pooled_alias(pool={"max_size": 1, "min_size": 1}) as wrapper:
        run_in_transaction(lambda: transaction.on_commit(give_back), deadline=60)
        found = taken[0].deadline
        pool_of(wrapper).putconn(taken[0])

    assert found == 4711.0


def test_it_gives_no_deadline_of_a_whole_to_who_has_the_session_next() -> None:
    taken: list[Any] = []

    def give_back() -> None:
        connection.close()
        taken.append(pool_of(wrapper).getconn())

    with pooled_alias(pool={"max_size": 1, "min_size": 1}) as wrapper:
        with pytest.raises(ConnectionLost):
            run_in_transaction(lambda: run_in_transaction(give_back, deadline=60), deadline=90, repeatable=False)
        found = taken[0].deadline
        pool_of(wrapper).putconn(taken[0])

    assert found is None


@pytest.mark.parametrize("loop", [False, True])
def test_it_says_that_the_deadline_passed_while_it_began(proxy: Proxy, loop: bool) -> None:
    connection.ensure_connection()
    proxy.delay = 0.3

    with pytest.raises(DeadlineExceeded):
        if loop:
            for attempt in deadlock_retries(deadline=0.1):
                with attempt:
                    pass
        else:
            run_in_transaction(lambda: None, deadline=0.1, max_retries=0)


def test_it_undoes_in_time_behind_a_peer_that_fell_silent(proxy: Proxy) -> None:
    def work() -> None:
        enter(1)
        proxy.silent = True
        raise ValueError("the function's own")

    connection.ensure_connection()
    started = time.monotonic()

    with pytest.raises(ValueError, match="the function's own"):
        run_in_transaction(work, deadline=2)

    # The patience of the connection is five minutes.
    assert time.monotonic() - started < 60
    proxy.silent = False
    proxy.cut()
    assert entries() == []


def test_it_ends_asking_behind_a_peer_that_fell_silent(
    proxy: Proxy, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.DB_POOL_TIMEOUT, settings.DB_CONNECT_TIMEOUT = 600, 300
    monkeypatch.setattr("dbresilience.commits._ASK_FOR", 0.3)
    with pooled_alias(HOST="127.0.0.1", PORT=str(proxy.port)):

        def work() -> None:
            enter(1)
            proxy.silent = True

        connection.ensure_connection()
        started = time.monotonic()
        with pytest.raises(CommitUnknown):
            run_in_transaction(work, deadline=1)

        assert time.monotonic() - started < 60
        proxy.silent = False
        proxy.cut()


def test_it_loses_no_whole_to_a_part_that_a_slow_server_ends_late(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dbresilience.nesting.CANCEL_TIMEOUT", 30.0)

    def whole() -> None:
        enter(1)
        proxy.delay = 0.15
        with pytest.raises(DeadlineExceeded):
            run_in_transaction(lambda: one("SELECT 1 FROM pg_sleep(60)"), deadline=0.3)
        proxy.delay = 0.0
        enter(2)

    run_in_transaction(whole, max_retries=0)

    assert entries() == [1, 2]


def test_it_loses_no_whole_to_a_part_that_ends_in_its_own_way() -> None:
    def part() -> None:
        with connection.cursor() as cursor:
            cursor.execute(
                """
                DO $$ BEGIN PERFORM pg_sleep(60);
                EXCEPTION WHEN query_canceled THEN RAISE unique_violation; END $$
                """
            )

    def whole() -> None:
        enter(1)
        with pytest.raises(DeadlineExceeded):
            run_in_transaction(part, deadline=0.2)
        enter(2)

    with pooled_alias():
        run_in_transaction(whole, max_retries=0)

    assert entries() == [1, 2]


def test_it_tells_what_nobody_knows_of_another_database_whatever_the_time() -> None:
    def late() -> None:
        # As a transaction of another database that this one has in it.
        time.sleep(0.6)
        raise CommitUnknown(7)

    with pytest.raises(CommitUnknown):
        run_in_transaction(late, deadline=0.5)
    with pytest.raises(CommitUnknown):
        run_in_transaction(lambda: run_in_transaction(late, deadline=0.5))


def test_what_waits_for_the_commit_has_savepoints_of_its_own() -> None:
    def part() -> None:
        enter(3)
        raise ValueError

    def afterwards() -> None:
        enter(2)
        with suppress(ValueError):
            run_in_transaction(part)
        enter(4)

    def work() -> None:
        enter(1)
        transaction.on_commit(lambda: run_in_transaction(afterwards))

    run_in_transaction(work, savepoints=False)

    assert entries() == [1, 2, 4]


def test_what_waits_for_the_commit_keeps_nobody_from_their_turn() -> None:
    runs: list[int] = []
    free: list[bool] = []

    def look(_: int) -> None:
        free.append(turns._turn.acquire(blocking=False))
        if free[-1]:
            turns._turn.release()

    def work() -> None:
        runs.append(1)
        if len(runs) == 1:
            fail("40P01")
        in_threads(1, look)
        transaction.on_commit(lambda: in_threads(1, look))

    run_in_transaction(work)

    assert free == [False, True]


def test_it_takes_no_part_of_a_transaction_for_the_whole(lock_held: int) -> None:
    with pooled_alias():
        transaction.set_autocommit(False)
        with pytest.raises(NestedTransaction):
            run_in_transaction(lambda: enter(1), lock=lock_held)
        transaction.rollback()
        transaction.set_autocommit(True)


def test_it_repeats_no_part_of_a_transaction_that_somebody_else_commits() -> None:
    runs: list[int] = []

    def work() -> None:
        runs.append(1)
        enter(2)
        fail("40P01")

    with pooled_alias():
        transaction.set_autocommit(False)
        enter(1)
        with pytest.raises(OperationalError):
            run_in_transaction(work)
        transaction.rollback()
        transaction.set_autocommit(True)

    assert (len(runs), entries()) == (1, [])


@pytest.mark.parametrize("way", ["marked", "said"])
def test_it_repeats_nothing_in_which_something_unrepeatable_ran(way: str) -> None:
    runs: list[str] = []

    def once() -> None:
        runs.append("once")

    def whole() -> None:
        runs.append("whole")
        if way == "marked":
            run_in_transaction(unrepeatable(once))
        else:
            run_in_transaction(once, repeatable=False)
        fail("40P01")

    def another() -> None:
        runs.append("another")
        if runs.count("another") == 1:
            fail("40P01")

    with pytest.raises(OperationalError):
        run_in_transaction(whole)
    run_in_transaction(another)

    assert runs == ["whole", "once", "another", "another"]


@pytest.mark.parametrize("repeatable", [True, False])
def test_it_begins_on_another_session_when_the_last_one_is_known_to_be_lost(repeatable: bool) -> None:
    with pooled_alias():
        enter(1)
        terminate([connection.connection.info.backend_pid])
        with pytest.raises(OperationalError):
            enter(2)

        run_in_transaction(lambda: enter(3), repeatable=repeatable)

    assert entries() == [1, 3]


def test_it_leaves_its_patience_to_a_session_whose_time_out_it_could_not_lift() -> None:
    with pooled_alias(pool=False):
        connection.ensure_connection()
        patience = connection.connection.patience
        with suppress(ZeroDivisionError), transaction.atomic():
            with suppress(Error):
                one("SELECT 1 / 0")
            with pytest.raises(Error), without_command_timeout():
                pass
            raise ZeroDivisionError

        assert patience is not None
        assert (connection.connection.patience, connection.connection.unlimited) == (patience, False)
