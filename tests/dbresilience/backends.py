"""What the tests of the pool need: an alias on our backend, threads, the server's sessions."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psycopg
from django.db import connection, connections

from dbresilience.postgresql.base import DatabaseWrapper
from dbresilience.postgresql.pool import Pool
from dbresilience.postgresql.stats import pools

ALIAS = "default"


@contextmanager
def pooled_alias(*, pool: dict[str, Any] | bool = True, **changes: Any) -> Iterator[DatabaseWrapper]:
    """The default alias on our backend, in every thread, with a pool of its own that is closed at the end."""
    usual, usual_settings = connections[ALIAS], connections.databases[ALIAS]
    known = copy.deepcopy(usual.settings_dict)
    known |= {"ENGINE": "dbresilience.postgresql", "CONN_MAX_AGE": 0, "CONN_HEALTH_CHECKS": False} | changes
    known["OPTIONS"] = known["OPTIONS"] | {"pool": pool}
    usual.close()
    usual_pool = pools.pop(ALIAS, None)
    connections.databases[ALIAS] = known
    del connections[ALIAS]
    wrapper = connections[ALIAS]
    assert isinstance(wrapper, DatabaseWrapper)
    try:
        yield wrapper
    finally:
        wrapper.close()
        wrapper.close_pool()
        connections.databases[ALIAS] = usual_settings
        connections[ALIAS] = usual
        if usual_pool is not None:
            pools[ALIAS] = usual_pool


def pool_of(wrapper: DatabaseWrapper) -> Pool:
    pool = wrapper.pool
    assert pool is not None
    return pool


@contextmanager
def other_session(settings: Mapping[str, Any] | None = None) -> Iterator[psycopg.Connection[Any]]:
    """A session that has nothing to do with Django, on the server of these settings or of the default alias."""
    settings = settings or connection.settings_dict
    known = {
        "host": settings["HOST"],
        "port": settings["PORT"] or None,
        "user": settings["USER"],
        "password": settings["PASSWORD"],
        "dbname": settings["NAME"],
    }
    with psycopg.connect(**{name: value for name, value in known.items() if value}, autocommit=True) as session:
        yield session


def one(sql: str, *, using: str = ALIAS) -> Any:
    """The one value that a query gives."""
    with connections[using].cursor() as cursor:
        cursor.execute(sql)
        row = cursor.fetchone()
    return row[0]


def in_threads(count: int, function: Callable[[int], None], *, seconds: float = 60) -> list[BaseException]:
    """Run ``function(number)`` in that many threads, each of which gives its connections back; returns their errors."""
    errors: list[BaseException] = []

    def guarded(number: int) -> None:
        try:
            function(number)
        except BaseException as exc:  # noqa: BLE001 - the caller asserts on them
            errors.append(exc)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=guarded, args=(number,), daemon=True) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=seconds)
    assert not any(thread.is_alive() for thread in threads), "a thread hangs"
    return errors


def fill(wrapper: DatabaseWrapper, count: int) -> list[int]:
    """Have ``count`` connections opened and returned to the pool; returns their backends."""
    pool = pool_of(wrapper)
    if pool.closed:
        wrapper.ensure_connection()
        wrapper.close()
    held = [pool.getconn() for _ in range(count)]
    backends = [connection.info.backend_pid for connection in held]
    for connection_held in held:
        pool.putconn(connection_held)
    return backends


def terminate(backends: list[int]) -> None:
    """End these sessions, and wait until they have ended."""
    with other_session() as session:
        session.execute("SELECT pg_terminate_backend(pid) FROM unnest(%s::int[]) AS pid", [backends])
        until = time.monotonic() + 60
        # Asking pg_terminate_backend to wait takes a tenth of a second for each.
        while session.execute("SELECT 1 FROM pg_stat_activity WHERE pid = ANY (%s)", [backends]).fetchone():
            assert time.monotonic() < until, "sessions do not end"
