from __future__ import annotations

import time

import pytest
from django.db import IntegrityError, OperationalError, connection, connections, transaction
from structlog.testing import capture_logs

from dbresilience.errors import CommitUnknown, ConnectionLost, DeadlineExceeded, NestedTransaction
from dbresilience.transactions import DEADLOCK, deadlock_retries, run_in_transaction, unrepeatable
from tests.dbresilience.backends import one, other_session, pool_of, pooled_alias, terminate
from tests.dbresilience.ledger import enter, entries, fail
from tests.dbresilience.proxy import Proxy

pytestmark = [pytest.mark.feature("A4", "B4", "B7"), pytest.mark.usefixtures("transactional_db")]


@pytest.fixture(autouse=True)
def short_waits(settings: object) -> None:
    settings.DB_RETRY_BASE_DELAY = 0.01  # type: ignore[attr-defined]


def test_it_writes_one_row_when_the_answer_to_commit_is_lost(proxy: Proxy) -> None:
    runs: list[int] = []
    afterwards: list[str] = []
    proxy.lose_commits = 1

    def work() -> str:
        runs.append(1)
        enter(1)
        transaction.on_commit(lambda: afterwards.append("told"))
        return "done"

    result = run_in_transaction(work)

    print(f"answers lost {proxy.lost}, runs {len(runs)}, rows {entries()}")
    assert (result, proxy.lost, len(runs)) == ("done", 1, 1)
    assert entries() == [1]
    assert afterwards == ["told"]


def test_it_repeats_what_the_server_says_was_aborted(proxy: Proxy) -> None:
    runs: list[int] = []

    def work() -> None:
        runs.append(1)
        enter(len(runs))
        if len(runs) == 1:
            # The message with COMMIT never arrives: the server undoes the transaction when it sees the end.
            proxy.cut()

    run_in_transaction(work)

    assert entries() == [2]


def test_it_says_that_it_does_not_know(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dbresilience.commits._ASK_FOR", 0.0)
    runs: list[int] = []
    proxy.lose_commits = 1

    def work() -> None:
        runs.append(1)
        enter(1)

    with pytest.raises(CommitUnknown) as caught:
        run_in_transaction(work)

    assert caught.value.transaction_id is not None
    assert len(runs) == 1


def test_it_reads_again_when_the_answer_is_lost_and_nothing_was_written(proxy: Proxy) -> None:
    enter(1)
    runs: list[int] = []
    proxy.lose_commits = 1

    def read() -> list[int]:
        runs.append(1)
        with connection.cursor() as cursor:
            cursor.execute("SELECT entry FROM ledger")
            return [entry for (entry,) in cursor.fetchall()]

    assert run_in_transaction(read, read_only=True) == [1]
    assert (proxy.lost, len(runs)) == (1, 2)


def test_it_logs_no_value_of_a_row_when_a_function_after_a_lost_answer_fails(
    proxy: Proxy,
) -> None:
    proxy.lose_commits = 1

    def work() -> None:
        enter(1)
        transaction.on_commit(lambda: enter_twice(4700 + 11), robust=True)

    with capture_logs() as logs:
        run_in_transaction(work)

    failed = next(event for event in logs if event["event"] == "on_commit_failed")
    assert "UniqueViolation" in failed["traceback"]
    assert "4711" not in str(logs)


def enter_twice(entry: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute("CREATE TEMP TABLE once (entry int UNIQUE)")
        for _ in range(2):
            cursor.execute("INSERT INTO once VALUES (%s)", [entry])


def test_it_says_that_the_deadline_passed_while_it_committed(ledger: None, monkeypatch: pytest.MonkeyPatch) -> None:
    # Its answer is not there at once, as with any server that is not next door.
    monkeypatch.setattr("dbresilience.commits.STATUS_SQL", "SELECT pg_xact_status(%s::text::xid8) FROM pg_sleep(0.2)")

    def work() -> None:
        with connection.cursor() as cursor:
            cursor.execute(
                """
                CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
                  'BEGIN PERFORM pg_sleep(60); RETURN NULL; END';
                CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON ledger DEFERRABLE INITIALLY DEFERRED
                  FOR EACH ROW EXECUTE FUNCTION slow();
                """
            )
        enter(1)

    with pytest.raises(DeadlineExceeded):
        run_in_transaction(work, deadline=0.3)

    assert entries() == []


def test_it_does_not_believe_a_server_with_another_history(proxy: Proxy) -> None:
    proxy.lose_commits = 1
    connection.ensure_connection()
    connection.connection.history = "7000000000000000000/00000002/16384"

    with pytest.raises(CommitUnknown):
        run_in_transaction(lambda: enter(1))


def test_it_repeats_nothing_when_a_function_after_the_commit_fails(ledger: None) -> None:
    def work() -> None:
        enter(1)
        transaction.on_commit(lambda: fail("40P01"))

    with pytest.raises(OperationalError):
        run_in_transaction(work)

    assert entries() == [1]


def test_it_repeats_only_what_it_was_told_to(ledger: None) -> None:
    runs: list[int] = []

    def work() -> None:
        runs.append(1)
        fail("40001")

    with pytest.raises(OperationalError):
        run_in_transaction(work, retry_on=DEADLOCK)

    assert len(runs) == 1


def test_it_repeats_errors_of_django_by_class(ledger: None) -> None:
    runs: list[int] = []

    def work() -> None:
        runs.append(1)
        fail("23505")

    with pytest.raises(IntegrityError):
        run_in_transaction(work, retry_on=IntegrityError, max_retries=2)

    assert len(runs) == 3


@pytest.mark.parametrize("way", ["marked", "said"])
def test_it_runs_what_must_not_be_repeated_once(ledger: None, way: str) -> None:
    runs: list[int] = []

    def work() -> None:
        runs.append(1)
        fail("40P01")

    with pytest.raises(OperationalError):
        if way == "marked":
            run_in_transaction(unrepeatable(work))
        else:
            run_in_transaction(work, repeatable=False)

    assert len(runs) == 1


@pytest.mark.parametrize("level", ["read committed", "repeatable read", "serializable"])
def test_it_runs_at_the_level_asked_for(ledger: None, level: str) -> None:
    def work() -> str:
        with connection.cursor() as cursor:
            cursor.execute("SHOW transaction_isolation")
            return str(cursor.fetchone()[0])

    found = run_in_transaction(work, isolation=level)  # type: ignore[arg-type]

    assert found == level
    assert run_in_transaction(work) == "read committed"


def test_it_lets_a_read_only_transaction_write_nothing(ledger: None) -> None:
    with pytest.raises(OperationalError.__base__ or Exception, match="read-only"):
        run_in_transaction(lambda: enter(1), read_only=True)


def test_it_refuses_a_level_inside_another_transaction(ledger: None) -> None:
    with transaction.atomic(), pytest.raises(NestedTransaction):
        run_in_transaction(lambda: None, isolation="serializable")


def test_it_ends_by_its_deadline_while_it_waits_for_a_lock(ledger: None) -> None:
    enter(1)
    started = time.monotonic()

    with other_session() as session, session.transaction():
        session.execute("LOCK TABLE ledger IN ACCESS EXCLUSIVE MODE")
        # The lock is held for as long as it takes.
        with pytest.raises(DeadlineExceeded):
            run_in_transaction(lambda: enter(2), deadline=0.3)

    print(f"a deadline of 300 ms ended after {(time.monotonic() - started) * 1000:.0f} ms")
    assert entries() == [1]


def test_it_ends_by_its_deadline_however_many_statements_there_are(ledger: None) -> None:
    begun = 0

    def work() -> None:
        nonlocal begun
        for _ in range(100):
            with connection.cursor() as cursor:
                begun += 1
                cursor.execute("SELECT pg_sleep(0.05)")

    with pooled_alias():
        connection.ensure_connection()
        with pytest.raises(DeadlineExceeded):
            run_in_transaction(work, deadline=0.5)

    # However slow the machine is: that many come before it is over.
    assert 0 < begun <= 0.5 / 0.05 + 1


def test_it_ends_by_its_deadline_behind_a_silent_peer(proxy: Proxy) -> None:
    def work() -> None:
        enter(1)
        proxy.silent = True
        enter(2)

    started = time.monotonic()

    with pytest.raises(DeadlineExceeded):
        run_in_transaction(work, deadline=0.5)
    took = time.monotonic() - started
    proxy.silent = False
    proxy.cut()

    print(f"a deadline of 500 ms behind a silent peer ended after {took * 1000:.0f} ms")
    assert took < 60
    assert entries() == []


def test_it_leaves_no_deadline_behind(ledger: None) -> None:
    with pooled_alias():
        run_in_transaction(lambda: enter(1), deadline=60)

        assert connection.connection.deadline is None
        assert one("SHOW lock_timeout") == "0"


def test_it_tells_of_a_plain_atomic_block_whose_connection_was_lost(ledger: None) -> None:
    with pooled_alias() as wrapper:
        with pytest.raises(ConnectionLost), transaction.atomic():
            enter(1)
            try:
                with transaction.atomic():
                    terminate([wrapper.connection.info.backend_pid])  # type: ignore[union-attr]
                    enter(2)
            except OperationalError:
                pass  # What a careless caller does.
        stats = pool_of(wrapper).stats()

    assert entries() == []
    assert stats.rollback_failures == 1


def test_it_leaves_an_error_of_the_block_as_it_is(ledger: None) -> None:
    with pooled_alias() as wrapper, pytest.raises(ValueError, match="the block's own"), transaction.atomic():
        enter(1)
        terminate([wrapper.connection.info.backend_pid])  # type: ignore[union-attr]
        raise ValueError("the block's own")


def test_it_runs_a_block_again_after_a_deadlock(ledger: None) -> None:
    numbers: list[int] = []

    for attempt in deadlock_retries():
        with attempt:
            numbers.append(attempt.number)
            enter(attempt.number)
            if attempt.number < 3:
                fail("40P01")

    assert numbers == [1, 2, 3]
    assert entries() == [3]


def test_it_raises_from_the_last_attempt(ledger: None) -> None:
    numbers: list[int] = []

    with pytest.raises(OperationalError):
        for attempt in deadlock_retries(max_retries=1):
            with attempt:
                numbers.append(attempt.number)
                fail("40P01")

    assert numbers == [1, 2]


def test_it_makes_one_attempt_inside_another_transaction(ledger: None) -> None:
    numbers: list[int] = []

    with transaction.atomic():
        with pytest.raises(OperationalError):
            for attempt in deadlock_retries():
                with attempt:
                    numbers.append(attempt.number)
                    enter(1)
                    fail("40P01")
        enter(2)

    assert numbers == [1]
    assert entries() == [2]


def test_it_refuses_a_loop_that_enters_no_attempt(ledger: None) -> None:
    with pytest.raises(RuntimeError, match="must be entered"):
        for _ in deadlock_retries():
            pass


def test_it_lets_other_errors_of_the_block_through(ledger: None) -> None:
    with pytest.raises(ValueError, match="mine"):
        for attempt in deadlock_retries():
            with attempt:
                enter(1)
                raise ValueError("mine")

    assert entries() == []
    assert not connections["default"].in_atomic_block


def test_it_does_not_hurry_what_waits_for_the_commit(ledger: None) -> None:
    seen: list[object] = []

    def work() -> None:
        enter(1)
        transaction.on_commit(lambda: seen.append(connection.connection.deadline))

    run_in_transaction(work, deadline=60)

    assert seen == [None]
