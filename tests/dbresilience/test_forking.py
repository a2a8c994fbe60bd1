"""A fork while the pool is open: children use none of the parent's connections, and nothing hangs."""

from __future__ import annotations

import json
import os
import select
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest
from django.db import Error, connection, transaction

from dbresilience.postgresql.base import DatabaseWrapper
from tests.dbresilience.backends import fill, one, other_session, pool_of, pooled_alias

pytestmark = [
    pytest.mark.feature("B2"),
    pytest.mark.usefixtures("transactional_db"),
    # Python 3.12 warns of any fork in a process with threads; that it is safe here is what these tests prove.
    pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning"),
]


def in_child(function: Callable[[], Any], *, seconds: float = 60) -> Any:
    """Fork, and return what the function returns in the child; a child that hangs is killed and fails the test."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            answer = function()
        except BaseException as exc:  # noqa: BLE001 - told to the parent
            answer = f"{type(exc).__name__}: {exc}"
        os.write(writing, json.dumps(answer).encode())
        os._exit(0)
    os.close(writing)
    try:
        if not select.select([reading], [], [], seconds)[0]:
            os.kill(child, signal.SIGKILL)
            pytest.fail("the child hangs")
        return json.loads(os.read(reading, 65536))
    finally:
        os.close(reading)
        os.waitpid(child, 0)


def use_five(wrapper: DatabaseWrapper) -> list[int]:
    return sorted({one("SELECT pg_backend_pid()"), *fill(wrapper, 5)})


def test_it_gives_parent_and_children_disjoint_backends() -> None:
    with pooled_alias() as wrapper:
        parents = set(fill(wrapper, 5))
        own = one("SELECT pg_backend_pid()")
        started = time.monotonic()
        children = [set(in_child(lambda: use_five(wrapper))) for _ in range(4)]
        took = time.monotonic() - started
        after = one("SELECT pg_backend_pid()")
        parents_after = set(fill(wrapper, 4))

    print(f"4 forks with an open pool: {[len(child) for child in children]} backends, 0 hangs, {took:.2f} s")
    assert all(len(child) >= 5 for child in children)
    assert all(not child & parents for child in children)
    assert own == after
    assert parents_after <= parents


def test_it_goes_on_with_the_parents_transaction() -> None:
    with pooled_alias(), transaction.atomic():
        before = one("SELECT pg_current_xact_id()::text")
        childs = in_child(child_tries_to_go_on)
        after = one("SELECT pg_current_xact_id()::text")

    assert childs == "refused"
    assert before == after


def child_tries_to_go_on() -> str:
    try:
        one("SELECT 1")
    except Error:
        return "refused"
    return "went on with the parent's transaction"


def test_it_forks_while_other_threads_hold_the_pools_lock() -> None:
    with pooled_alias() as wrapper:
        fill(wrapper, 3)
        pool = pool_of(wrapper)
        with pool._lock:
            answer = in_child(lambda: one("SELECT 1"))

    assert answer == 1


def test_it_ends_the_parents_sessions_with_the_parent() -> None:
    """A child that outlives its parent must not hold the parent's sockets open."""

    def parent() -> list[int]:
        connection.close()
        with pooled_alias() as wrapper:
            backends = fill(wrapper, 3)
            if os.fork() == 0:
                os.close(over)
                os.read(waiting, 1)
                os._exit(0)
            os.write(report, json.dumps(backends).encode())
            os.kill(os.getpid(), signal.SIGKILL)
        return []

    reading, report = os.pipe()
    waiting, over = os.pipe()
    child = os.fork()
    if child == 0:
        parent()
    os.waitpid(child, 0)
    backends = json.loads(os.read(reading, 4096))
    os.close(reading)
    os.close(report)
    until = time.monotonic() + 60
    with other_session() as session:
        while left := session.execute("SELECT 1 FROM pg_stat_activity WHERE pid = ANY (%s)", [backends]).fetchall():
            if time.monotonic() > until:
                break
    os.close(over)
    os.close(waiting)

    assert len(backends) == 3
    assert left == []
