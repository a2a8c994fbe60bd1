from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import OperationalError, connections
from psycopg_pool import PoolTimeout
from psycopg_pool.pool import WaitingClient

from dbresilience.postgresql.base import DatabaseWrapper
from dbresilience.postgresql.pool import CHECK_AFTER
from dbresilience.postgresql.stats import pool_stats
from tests.dbresilience import loads
from tests.dbresilience.backends import ALIAS, fill, in_threads, one, pool_of, pooled_alias, terminate

pytestmark = [pytest.mark.feature("A2", "B2"), pytest.mark.usefixtures("transactional_db")]


@pytest.fixture
def pooled() -> Iterator[DatabaseWrapper]:
    with pooled_alias() as wrapper:
        yield wrapper


def test_it_gives_the_same_backend_to_one_after_another(pooled: DatabaseWrapper) -> None:
    first = one("SELECT pg_backend_pid()")
    pooled.close()
    second = one("SELECT pg_backend_pid()")

    assert first == second
    assert pool_of(pooled).stats().open == 1


def test_it_serves_first_what_came_back_last(pooled: DatabaseWrapper) -> None:
    fill(pooled, 3)
    pool = pool_of(pooled)
    first, second = pool.getconn(), pool.getconn()

    pool.putconn(second)
    pool.putconn(first)
    served = pool.getconn()
    pool.putconn(served)

    assert served is first


def test_it_asks_a_connection_that_survived_once_and_not_for_ever(pooled: DatabaseWrapper) -> None:
    fill(pooled, 1)
    pool = pool_of(pooled)
    pool.sweep()

    asked = []
    for _ in range(3):
        connection = pool.getconn()
        asked.append(pool._unused_for(connection, time.monotonic()) >= CHECK_AFTER)
        pool.putconn(connection)

    assert asked == [True, False, False]


def test_it_makes_what_is_kept_at_once_for_those_who_wait(pooled: DatabaseWrapper) -> None:
    fill(pooled, 1)
    pool = pool_of(pooled)
    held = pool.getconn()
    with pool._lock:
        pool._waiting.extend(WaitingClient() for _ in range(5))
        for _ in range(7):
            pool._maybe_grow_pool()
        wanted = pool._nconns
    pool.putconn(held)

    # The one that is held, one for each who waits, and no more than one beyond.
    assert wanted == 7


def test_it_takes_its_sizes_and_waits_from_the_settings(settings: object) -> None:
    settings.DB_POOL_SIZE, settings.DB_MAX_OVERFLOW = 2, 1  # type: ignore[attr-defined]
    settings.DB_POOL_TIMEOUT = 1.0  # type: ignore[attr-defined]

    with pooled_alias() as wrapper:
        fill(wrapper, 3)
        pool = pool_of(wrapper)
        held = [pool.getconn() for _ in range(3)]
        started = time.monotonic()
        with pytest.raises(OperationalError) as caught:
            one("SELECT 1")
        waited = time.monotonic() - started
        stats = pool.stats()
        for connection in held:
            pool.putconn(connection)

    assert isinstance(caught.value.__cause__, PoolTimeout)
    # Not the half minute that it waits by default.
    assert 0.9 < waited < 30
    assert (stats.size, stats.max_overflow, stats.open, stats.overflow, stats.borrowed) == (2, 1, 3, 1, 3)
    assert (stats.utilisation, stats.timeouts) == (1.0, 1)


def test_it_has_the_defaults_of_the_product(pooled: DatabaseWrapper) -> None:
    stats = pool_of(pooled).stats()

    assert (stats.size, stats.max_overflow) == (20, 30)
    assert (pool_of(pooled).timeout, pool_of(pooled).max_lifetime) == (30, 3600)


def test_it_closes_the_overflow_soon_after_use(settings: object) -> None:
    settings.DB_POOL_SIZE, settings.DB_MAX_OVERFLOW = 2, 8  # type: ignore[attr-defined]
    settings.DB_OVERFLOW_IDLE = 0.1  # type: ignore[attr-defined]

    with pooled_alias() as wrapper:
        fill(wrapper, 10)
        until = time.monotonic() + 60
        while pool_of(wrapper).stats().open > 2 and time.monotonic() < until:
            time.sleep(0.02)
        stats = pool_of(wrapper).stats()

    assert (stats.open, stats.idle, stats.overflow_closed) == (2, 2, 8)


def test_it_replaces_a_connection_that_is_too_old(settings: object) -> None:
    settings.DB_POOL_RECYCLE = 1  # type: ignore[attr-defined]

    with pooled_alias() as wrapper:
        first = one("SELECT pg_backend_pid()")
        assert wrapper.connection is not None
        wrapper.connection._expire_at = time.monotonic()
        wrapper.close()
        second = one("SELECT pg_backend_pid()")
        stats = pool_of(wrapper).stats()

    assert first != second
    assert stats.recycled == 1


def test_it_serves_no_dead_connection_after_all_were_terminated(pooled: DatabaseWrapper) -> None:
    loads.all_terminated(pooled)


def test_it_keeps_the_connections_that_are_alive(pooled: DatabaseWrapper) -> None:
    backends = fill(pooled, 10)
    terminate(backends[:1])

    survivors = set(fill(pooled, 9)) & set(backends)

    assert survivors == set(backends[1:])


def test_it_measures_waits_and_holds(pooled: DatabaseWrapper) -> None:
    for _ in range(10):
        one("SELECT pg_sleep(0.01)")
        pooled.close()

    (stats,) = [stats for stats in pool_stats() if stats.alias == ALIAS]

    assert stats.hold.count == stats.wait.count == 10
    assert stats.hold.p50 is not None and 10 <= stats.hold.p50 < 1000
    assert stats.hold.p50 <= (stats.hold.p95 or 0) <= (stats.hold.p99 or 0) <= (stats.hold.slowest or 0)


@pytest.mark.feature("B1")
def test_it_ends_a_statement_that_takes_too_long(settings: object) -> None:
    settings.DB_COMMAND_TIMEOUT = 0.1  # type: ignore[attr-defined]

    with pooled_alias(), pytest.raises(OperationalError, match="statement timeout"):
        one("SELECT pg_sleep(5)")


def test_it_serves_more_threads_than_connections(settings: object) -> None:
    settings.DB_POOL_SIZE, settings.DB_MAX_OVERFLOW = 2, 2  # type: ignore[attr-defined]
    backends: set[int] = set()

    def work(_: int) -> None:
        backends.add(one("SELECT pg_backend_pid()"))

    with pooled_alias() as wrapper:
        errors = in_threads(30, work)
        stats = pool_of(wrapper).stats()

    assert errors == []
    assert len(backends) <= 4
    assert (stats.borrowed, stats.waiting) == (0, 0)


def test_it_makes_good_for_a_thread_that_ends_without_returning(settings: object) -> None:
    settings.DB_POOL_SIZE, settings.DB_MAX_OVERFLOW = 1, 0  # type: ignore[attr-defined]
    settings.DB_POOL_TIMEOUT = 10  # type: ignore[attr-defined]

    with pooled_alias() as wrapper:
        thread = threading.Thread(target=lambda: connections[ALIAS].ensure_connection())
        thread.start()
        thread.join()
        assert one("SELECT 1") == 1
        stats = pool_of(wrapper).stats()

    assert stats.lost == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DB_POOL_SIZE", -1),
        ("DB_POOL_SIZE", "many"),
        ("DB_POOL_SIZE", 2.5),
        ("DB_MAX_OVERFLOW", "nan"),
        ("DB_POOL_TIMEOUT", 0),
        ("DB_POOL_RECYCLE", "hourly"),
        ("DB_CONNECT_TIMEOUT", 0),
        ("DB_COMMAND_TIMEOUT", -5),
        ("DB_SESSION_TIMEOUT", "inf"),
        ("DB_PGBOUNCER", "maybe"),
    ],
)
def test_it_refuses_a_senseless_setting_by_name(settings: object, name: str, value: object) -> None:
    setattr(settings, name, value)

    with pytest.raises(ImproperlyConfigured, match=name), pooled_alias() as wrapper:
        pool_of(wrapper)


def test_it_refuses_a_pool_without_any_connection(settings: object) -> None:
    settings.DB_POOL_SIZE = settings.DB_MAX_OVERFLOW = 0  # type: ignore[attr-defined]

    with pytest.raises(ImproperlyConfigured, match="DB_POOL_SIZE and DB_MAX_OVERFLOW"), pooled_alias() as wrapper:
        pool_of(wrapper)


def test_it_refuses_options_that_contradict_each_other() -> None:
    with (
        pytest.raises(ImproperlyConfigured, match="max_size"),
        pooled_alias(pool={"min_size": 5, "max_size": 2}) as wrapper,
    ):
        pool_of(wrapper)


@pytest.mark.feature("B1")
@pytest.mark.parametrize(
    ("pool", "told"),
    [
        ({"min_size": "few"}, r'"pool"\]\["min_size"\] must be a number'),
        ({"max_size": -1}, r'"pool"\]\["max_size"\] must be between'),
        ({"timeout": "soon"}, r'"pool"\]\["timeout"\] must be a number'),
        ({"many": 1}, r'"pool"\]: .*many'),
        ("yes", r'"pool"\] must be True, False or a dictionary'),
    ],
)
def test_it_names_the_option_of_the_pool_that_makes_no_sense(pool: Any, told: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=told), pooled_alias(pool=pool) as wrapper:
        pool_of(wrapper)


@pytest.mark.feature("B1")
def test_it_names_the_setting_that_keeps_connections_beside_the_pool() -> None:
    with pytest.raises(ImproperlyConfigured, match="CONN_MAX_AGE"), pooled_alias(CONN_MAX_AGE=60) as wrapper:
        pool_of(wrapper)


@pytest.mark.feature("B1")
def test_it_says_soon_that_the_server_is_away() -> None:
    with pooled_alias(HOST="127.0.0.1", PORT="1"):
        started = time.monotonic()
        with pytest.raises(OperationalError, match="cannot be reached"):
            one("SELECT 1")
        took = time.monotonic() - started

    print(f"a server that is away: said after {took:.2f} s")
    assert took < 30
