"""What a signal leaves behind whose handler raises, as Celery's soft time limit does, in the middle of a statement."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from django.db import transaction

from dbresilience.transactions import run_in_transaction
from tests.dbresilience.backends import one, other_session, pooled_alias
from tests.dbresilience.ledger import enter, entries

pytestmark = [pytest.mark.feature("A3", "A4", "B4"), pytest.mark.usefixtures("ledger")]

# Serves asleep: what runs pg_sleep on this database.
ASLEEP_SQL = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'"


class SoftTimeLimit(Exception):
    """As Celery's."""


def asleep() -> int:
    with other_session() as session:
        row = session.execute(ASLEEP_SQL).fetchone()
    assert row is not None
    return int(row[0])


@contextmanager
def interrupted_asleep(error: type[BaseException]) -> Iterator[None]:
    """Have this error raised in the main thread as soon as a session sleeps."""

    def interrupt(*_: object) -> None:
        raise error("time is up")

    def watch() -> None:
        until = time.monotonic() + 60
        while not asleep() and time.monotonic() < until:
            time.sleep(0.01)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGALRM)

    usual = signal.signal(signal.SIGALRM, interrupt)
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        with pytest.raises(error, match="time is up"):
            yield
    finally:
        watcher.join()
        signal.signal(signal.SIGALRM, usual)


@pytest.fixture(params=[True, False], ids=["pooled", "alone"])
def backend(request: pytest.FixtureRequest) -> Iterator[None]:
    with pooled_alias(pool=request.param):
        yield


@pytest.fixture
def slow_commit(ledger: None) -> Iterator[None]:
    """The commit of entry 1 takes a minute."""
    with other_session() as session:
        session.execute(
            """
            CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
              'BEGIN PERFORM pg_sleep(60); RETURN NULL; END';
            CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON ledger DEFERRABLE INITIALLY DEFERRED
              FOR EACH ROW WHEN (NEW.entry = 1) EXECUTE FUNCTION slow();
            """
        )
    yield
    with other_session() as session:
        session.execute("DROP FUNCTION slow CASCADE")


def in_an_atomic_block(work: Callable[[], None], **_: object) -> None:
    with transaction.atomic():
        work()


ENDS = [SoftTimeLimit, KeyboardInterrupt, SystemExit]


@pytest.mark.parametrize("error", ENDS)
def test_it_ends_a_statement_that_nobody_waits_for(backend: None, error: type[BaseException]) -> None:
    def work() -> None:
        enter(1)
        one("SELECT 1 FROM pg_sleep(60)")

    with interrupted_asleep(error):
        run_in_transaction(work)

    assert asleep() == 0
    run_in_transaction(lambda: enter(2))
    assert entries() == [2]


@pytest.mark.parametrize("error", ENDS)
@pytest.mark.parametrize("run", [run_in_transaction, in_an_atomic_block])
def test_it_repeats_nothing_and_tells_nobody_when_its_commit_was_interrupted(
    backend: None, slow_commit: None, error: type[BaseException], run: Callable[..., object]
) -> None:
    runs: list[int] = []
    told: list[str] = []

    def work() -> None:
        runs.append(1)
        enter(1)
        transaction.on_commit(lambda: told.append("of the first"))

    with interrupted_asleep(error):
        run(work, retry_on=Exception)
    run_in_transaction(lambda: enter(2))

    assert (len(runs), told, entries()) == (1, [], [2])
    assert asleep() == 0


@pytest.mark.parametrize("error", ENDS)
@pytest.mark.parametrize("run", [run_in_transaction, in_an_atomic_block])
def test_nothing_is_left_of_what_was_interrupted_before_its_commit_was_sent(
    backend: None, monkeypatch: pytest.MonkeyPatch, error: type[BaseException], run: Callable[..., object]
) -> None:
    def interrupt(*_: object) -> None:
        raise error("time is up")

    with monkeypatch.context() as patch:
        patch.setattr("dbresilience.postgresql.connection.Connection.commit", interrupt)
        with pytest.raises(error, match="time is up"):
            run(lambda: enter(1))
    told: list[str] = []

    def work() -> None:
        enter(2)
        transaction.on_commit(lambda: told.append("of the second"))

    run_in_transaction(work)

    assert (entries(), told) == ([2], ["of the second"])


@pytest.mark.parametrize("error", ENDS)
@pytest.mark.parametrize("place", ["_doom", "_was_ended_inside", "_commit"])
def test_nothing_is_left_of_a_run_that_was_interrupted_while_it_ended(
    backend: None, monkeypatch: pytest.MonkeyPatch, error: type[BaseException], place: str
) -> None:
    def interrupt(*_: object) -> None:
        raise error("time is up")

    with monkeypatch.context() as patch:
        patch.setattr(f"dbresilience.attempts.OutermostRun.{place}", interrupt)
        with pytest.raises(error, match="time is up"):
            run_in_transaction(lambda: enter(1))

    run_in_transaction(lambda: enter(2))

    assert entries() == [2]
