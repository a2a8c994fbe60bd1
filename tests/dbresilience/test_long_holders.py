from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.core.handlers.exception import convert_exception_to_response
from django.core.signals import request_finished, request_started
from django.db import InterfaceError, OperationalError, connection, connections, transaction
from django.dispatch import Signal
from django.http import HttpRequest, HttpResponse
from django.middleware.http import ConditionalGetMiddleware
from django.test import RequestFactory

from dbresilience.postgresql.base import DatabaseWrapper
from dbresilience.postgresql.watcher import watch_once
from dbresilience.work import long_operation
from tests.dbresilience.backends import one, pool_of, pooled_alias

pytestmark = [pytest.mark.feature("B2", "B3"), pytest.mark.usefixtures("transactional_db")]

Watched = Callable[[], list[Any]]


@pytest.fixture
def pooled(settings: object) -> Iterator[DatabaseWrapper]:
    settings.DB_LEAK_WARNING = 60  # type: ignore[attr-defined]
    with pooled_alias() as wrapper:
        yield wrapper


def age_by(wrapper: DatabaseWrapper, seconds: float) -> None:
    """Make the loan of this thread that much older."""
    session = wrapper.connection
    assert session is not None and session.borrowing is not None
    session.borrowing.since -= seconds
    wrapper._refresh_at -= seconds


@pytest.fixture
def watched(pooled: DatabaseWrapper, caplog: pytest.LogCaptureFixture) -> Callable[[], list[Any]]:
    """Looks once, and returns what was reported for this loan."""

    def look() -> list[Any]:
        caplog.clear()
        with caplog.at_level(logging.INFO):
            watch_once([pool_of(pooled)])
        return lines(caplog, "connection_held_long")

    return look


def lines(caplog: pytest.LogCaptureFixture, event: str) -> list[Any]:
    return [record.msg for record in caplog.records if isinstance(record.msg, dict) and record.msg["event"] == event]


def heard(signal: Signal, **arguments: Any) -> None:
    """Send a signal to the receivers of ``dbresilience.work`` alone: others close connections."""
    for receiver in signal._live_receivers(None)[0]:
        if receiver.__module__ == "dbresilience.work":
            receiver(**arguments)


def borrow_somewhere_special() -> None:
    one("SELECT 'a secret', 42")


def test_it_reports_who_holds_a_connection_and_from_where(pooled: DatabaseWrapper, watched: Watched) -> None:
    borrow_somewhere_special()
    age_by(pooled, 61)

    (warning,) = watched()

    assert warning["seconds"] >= 61
    assert any("borrow_somewhere_special" in line for line in warning["borrowed_at"])
    assert any("test_it_reports_who_holds" in line for line in warning["now_at"])
    assert warning["backend"] == pooled.connection.info.backend_pid  # type: ignore[union-attr]
    assert warning["last_statement"] == "SELECT ?, ?"
    assert pool_of(pooled).stats().long_holds == 1


def test_it_names_the_view_and_no_middleware(pooled: DatabaseWrapper, watched: Watched) -> None:
    def view(request: HttpRequest) -> HttpResponse:
        borrow_somewhere_special()
        return HttpResponse()

    handler = convert_exception_to_response(ConditionalGetMiddleware(convert_exception_to_response(view)))
    handler(RequestFactory().get("/"))
    age_by(pooled, 61)

    (warning,) = watched()

    text = "\n".join(warning["borrowed_at"])
    assert ".view: borrow_somewhere_special()" in text
    assert "convert_exception_to_response" not in text
    assert "MiddlewareMixin" not in text


def test_it_passes_over_the_calls_of_the_backend_alone(pooled: DatabaseWrapper) -> None:
    borrow_somewhere_special()
    loan = pooled.connection.borrowing  # type: ignore[union-attr]
    asked = pool_of(pooled).getconn()
    by_hand = asked.borrowing
    pool_of(pooled).putconn(asked)

    assert loan._stack[0].co_name == "ensure_connection"  # type: ignore[union-attr]
    assert by_hand._stack[0].co_name == "test_it_passes_over_the_calls_of_the_backend_alone"  # type: ignore[union-attr]


def test_it_reports_once_and_again_when_it_comes_back(
    pooled: DatabaseWrapper, watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    one("SELECT 1")
    age_by(pooled, 61)
    first, second = watched(), watched()

    # Where commands log from: who hears of a loan hears of its end.
    with caplog.at_level(logging.WARNING):
        pooled.close()

    assert (len(first), len(second)) == (1, 0)
    (line,) = lines(caplog, "connection_returned_late")
    assert line["seconds"] >= 61


def test_it_is_quiet_before_the_time(pooled: DatabaseWrapper, watched: Watched) -> None:
    one("SELECT 1")
    age_by(pooled, 50)

    assert watched() == []


def test_it_names_the_request_without_its_query(pooled: DatabaseWrapper, watched: Watched) -> None:
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/customers/", "QUERY_STRING": "email=ann@example.com"}
    heard(request_started, environ=environ)
    one("SELECT 1")
    age_by(pooled, 61)

    (warning,) = watched()
    heard(request_finished)

    assert warning["work"] == "request GET /customers/"


def test_it_raises_no_false_alarm_for_work_that_said_so(pooled: DatabaseWrapper, watched: Watched) -> None:
    one("SELECT 1")
    age_by(pooled, 61)

    with long_operation("reindex", minutes=40):
        quiet = watched()

    assert quiet == []


def test_it_reports_a_long_operation_over_its_time(pooled: DatabaseWrapper, watched: Watched) -> None:
    one("SELECT 1")

    with long_operation("reindex", minutes=0):
        (warning,) = watched()

    assert warning["operation"] == "reindex"


def test_it_reports_again_at_the_age_of_a_session(pooled: DatabaseWrapper, watched: Watched) -> None:
    with transaction.atomic():
        one("SELECT 1")
        age_by(pooled, 61)
        first = watched()
        age_by(pooled, 1800)
        second = watched()
        third = watched()

    assert (len(first), len(second), len(third)) == (1, 1, 0)


def test_it_exchanges_a_session_that_is_too_old(pooled: DatabaseWrapper) -> None:
    one("SELECT 1")
    age_by(pooled, 1801)

    assert one("SELECT 1") == 1
    assert pool_of(pooled).stats().refreshed == 1
    assert pool_of(pooled).stats().longest_hold < 1800  # type: ignore[operator]


def test_it_exchanges_no_session_in_a_transaction(pooled: DatabaseWrapper) -> None:
    with transaction.atomic():
        before = one("SELECT pg_current_xact_id()::text")
        age_by(pooled, 1801)
        after = one("SELECT pg_current_xact_id()::text")

    assert before == after
    assert pool_of(pooled).stats().refreshed == 0


def test_it_exchanges_no_session_of_work_that_said_so(pooled: DatabaseWrapper) -> None:
    with long_operation("reindex", minutes=40):
        one("SELECT 1")
        age_by(pooled, 1801)
        one("SELECT 1")
        during = pool_of(pooled).stats().refreshed
    one("SELECT 1")

    assert (during, pool_of(pooled).stats().refreshed) == (0, 1)


def test_it_exchanges_no_session_that_reads_a_result_in_pieces(pooled: DatabaseWrapper) -> None:
    with connection.chunked_cursor() as cursor:
        cursor.execute("SELECT generate_series(1, 3)")
        first = cursor.fetchone()
        pooled._refresh_at = min(pooled._refresh_at, time.monotonic() + 3600)
        assert pooled._refresh_at > time.monotonic()
        one("SELECT 1")
        second = cursor.fetchone()

    assert (first, second) == ((1,), (2,))
    assert pool_of(pooled).stats().refreshed == 0


def test_it_takes_a_connection_away_when_told_to(pooled: DatabaseWrapper, watched: Watched, settings: object) -> None:
    settings.DB_LEAK_RECLAIM = 120  # type: ignore[attr-defined]
    # One place: whoever comes next needs that of the connection which was taken away.
    settings.DB_POOL_SIZE, settings.DB_MAX_OVERFLOW = 1, 0  # type: ignore[attr-defined]
    held, over = threading.Event(), threading.Event()
    failures: list[BaseException] = []

    def leak() -> None:
        try:
            one("SELECT 1")
            age_by(connections["default"], 121)  # type: ignore[arg-type]
            held.set()
            over.wait(timeout=60)
            one("SELECT 1")
        except (OperationalError, InterfaceError) as exc:
            failures.append(exc)
        finally:
            connections.close_all()

    thread = threading.Thread(target=leak)
    thread.start()
    assert held.wait(timeout=60)
    watched()
    stats = pool_of(pooled).stats()
    over.set()
    thread.join(timeout=60)
    after = pool_of(pooled).stats()

    assert (stats.reclaimed, stats.borrowed) == (1, 0)
    assert len(failures) == 1
    assert (after.borrowed, after.open) == (0, stats.open)
    assert one("SELECT 1") == 1
