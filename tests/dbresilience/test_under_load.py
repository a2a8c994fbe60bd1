"""The proofs in short; in full they are in tests/chaos/dbresilience."""

from __future__ import annotations

import tempfile
import threading
import time
from pathlib import Path

import pytest
from django.db import OperationalError, connection

from tests.dbresilience import loads
from tests.dbresilience.backends import fill, one, pool_of, pooled_alias
from tests.dbresilience.proxy import Proxy

pytestmark = [pytest.mark.feature("A15"), pytest.mark.usefixtures("transactional_db")]

SEED = 20_251


@pytest.fixture(autouse=True)
def short_waits(settings: object) -> None:
    settings.DB_RETRY_BASE_DELAY = 0.02  # type: ignore[attr-defined]


@pytest.mark.feature("B1", "B2")
def test_it_loses_at_most_the_requests_in_flight_to_terminations() -> None:
    with pooled_alias():
        requests, terminated = loads.under_terminations(SEED, seconds=1.5, a_second=10, threads=8)

    assert terminated >= 5
    assert len(requests.failures) <= terminated
    assert requests.served > 20


@pytest.mark.feature("A2", "B2")
def test_it_serves_every_thread_within_the_wait(settings: object) -> None:
    settings.DB_POOL_SIZE, settings.DB_MAX_OVERFLOW = 4, 6  # type: ignore[attr-defined]

    with pooled_alias() as wrapper:
        ends = loads.exhausted(wrapper, threads=60, hold=0.02)

    assert ends == {"served": 60}


@pytest.mark.feature("A2", "B2")
def test_it_refuses_cleanly_who_waited_too_long(settings: object) -> None:
    settings.DB_POOL_SIZE, settings.DB_MAX_OVERFLOW = 2, 2  # type: ignore[attr-defined]
    settings.DB_POOL_TIMEOUT = 0.3  # type: ignore[attr-defined]

    with pooled_alias() as wrapper:
        ends = loads.exhausted(wrapper, threads=30, hold=0.2)

    assert ends["served"] >= 4
    assert ends["refused"] > 0


@pytest.mark.feature("B1")
def test_it_is_back_after_the_server_is() -> None:
    # Not one of pytest's folders: another run closes those to nobody, as whom the server may run.
    folder = Path(tempfile.mkdtemp(prefix="zenskar-test-"))
    folder.chmod(0o755)

    # How soon, the long form measures, on a machine that does nothing else.
    assert loads.under_restarts(folder, restarts=1, threads=4, down=0.7) < 60


@pytest.mark.feature("A6", "B6")
def test_it_brings_deadlocked_transactions_through() -> None:
    with pooled_alias():
        most = loads.reversed_locks(SEED, threads=4, rounds=2, purses=2, hold=0.03)

    assert most <= 5


@pytest.mark.feature("A4", "B7")
def test_it_lets_no_write_skew_through_under_serializable() -> None:
    with pooled_alias():
        assert loads.write_skew(SEED, rounds=5) == 0


@pytest.mark.feature("B1")
def test_it_finds_out_by_the_deadline_that_a_peer_fell_silent(settings: object) -> None:
    settings.DB_CHECK_TIMEOUT = 0.2  # type: ignore[attr-defined]
    settings.DB_POOL_TIMEOUT = 1  # type: ignore[attr-defined]
    known = connection.settings_dict
    with (
        Proxy(known["HOST"], int(known["PORT"])) as proxy,
        pooled_alias(HOST="127.0.0.1", PORT=str(proxy.port)) as wrapper,
    ):
        fill(wrapper, 8)
        time.sleep(0.6)  # They are asked only after half a second without use.
        proxy.silent = True
        started = time.monotonic()
        with pytest.raises(OperationalError):
            one("SELECT 1")
        took = time.monotonic() - started
        proxy.silent = False
        proxy.cut()
        wrapper.close()
        healed = time.monotonic()
        until = healed + 60
        while True:
            try:
                assert one("SELECT 1") == 1
                break
            except OperationalError:
                wrapper.close()
                assert time.monotonic() < until
        stats = pool_of(wrapper).stats()

    print(f"silent peer: refused after {took * 1000:.0f} ms, {stats.drains} drain")
    assert took < 60
    assert stats.drains == 1


@pytest.mark.feature("B1")
def test_it_ends_a_statement_that_a_silent_peer_never_answers(settings: object) -> None:
    settings.DB_COMMAND_TIMEOUT = 0.3  # type: ignore[attr-defined]
    known = connection.settings_dict
    with (
        pytest.MonkeyPatch.context() as patch,
        Proxy(known["HOST"], int(known["PORT"])) as proxy,
        pooled_alias(HOST="127.0.0.1", PORT=str(proxy.port)) as wrapper,
    ):
        patch.setattr("dbresilience.postgresql.limits.GRACE", 0.2)
        wrapper.ensure_connection()
        proxy.silent = True
        with pytest.raises(OperationalError, match="did not answer in time"):
            one("SELECT 1")
        counted = pool_of(wrapper).stats().answer_timeouts
        proxy.silent = False
        proxy.cut()

    assert counted == 1


@pytest.mark.feature("B1")
def test_it_ends_every_transaction_by_its_deadline_when_the_peer_falls_silent(settings: object) -> None:
    # Nothing but the deadline ends them.
    settings.DB_POOL_TIMEOUT = 300  # type: ignore[attr-defined]
    known = connection.settings_dict
    with (
        Proxy(known["HOST"], int(known["PORT"])) as proxy,
        pooled_alias(HOST="127.0.0.1", PORT=str(proxy.port)) as wrapper,
    ):
        slowest = loads.silent_peer(proxy, wrapper, threads=4, deadline=0.5)

    assert slowest < 60


def test_it_goes_on_when_threads_come_and_go() -> None:
    with pooled_alias() as wrapper:
        for _ in range(20):
            thread = threading.Thread(target=_ask_and_return)
            thread.start()
            thread.join()
        stats = pool_of(wrapper).stats()

    assert (stats.borrowed, stats.open, stats.lost) == (0, 1, 0)


def _ask_and_return() -> None:
    try:
        one("SELECT 1")
    finally:
        connection.close()
