"""With ten million events in the log: what is published, drained and shown, beside the same with none."""

from __future__ import annotations

import time
from collections.abc import Callable

from django.contrib.auth import get_user_model
from django.db import connection
from django.test import Client

from benchmarks.outbox import load
from benchmarks.outbox.measures import Nothing
from operations.metrics import metrics_page
from outbox.api.documents import statistics_document
from outbox.relay import relay_once
from outbox.subscriptions import subscription_ensure

REPEATED = 20


def aged(count: int, events: int, runs: int) -> dict[str, dict[str, list[float]]]:
    """Figures with none, with ``count`` old events, and with none again, in the same cluster.

    Args:
        count: events that are in the log already, sequenced and delivered.
        events: that are published and drained for each figure.
        runs: figures of each kind and side.

    Returns:
        By what was measured: figures ``empty`` and ``full``; of publishing and draining events a second, of pages the
        milliseconds of each.
    """
    client = _operator()
    load.forget_all()
    found: dict[str, dict[str, list[float]]] = {}
    for side in ("empty", "full", "empty"):
        if side == "full":
            load.fill_old(count)
        else:
            load.forget_all()
        _caught_up()
        for _ in range(runs):
            for name, figure in _figures(client, events):
                found.setdefault(name, {}).setdefault(side, []).append(figure)
    return found


def _figures(client: Client, events: int) -> list[tuple[str, float]]:
    keys = load.keys("uniform", events)
    started = time.perf_counter()
    load.publish_all(keys)
    published = time.perf_counter() - started
    load.settle()
    started = time.perf_counter()
    assert relay_once(Nothing(), seconds=600) >= events
    drained = time.perf_counter() - started
    return [
        ("publish", events / published),
        ("drain", events / drained),
        ("list", _timed(lambda: _shown(client, "/admin/outbox/storedevent/"))),
        ("board", _timed(lambda: _shown(client, "/admin/outbox/subscription/"))),
        ("statistics", _timed(statistics_document)),
        ("metrics", _timed(metrics_page)),
    ]


def _timed(look: Callable[[], object]) -> float:
    """Milliseconds, the median of some."""
    times: list[float] = []
    for _ in range(REPEATED):
        started = time.perf_counter()
        look()
        times.append((time.perf_counter() - started) * 1e3)
    return sorted(times)[REPEATED // 2]


def _shown(client: Client, address: str) -> None:
    answer = client.get(address)
    assert answer.status_code == 200, answer.status_code


def _caught_up() -> None:
    """A subscriber that has been given all of what is there."""
    subscription_ensure(Nothing())
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE outbox_lane SET cursor = (SELECT CASE WHEN is_called THEN last_value ELSE 0 END"
            " FROM outbox_log_position_seq)"
        )


def _operator() -> Client:
    user, _ = get_user_model().objects.get_or_create(username="bench", is_staff=True, is_superuser=True)
    client = Client()
    client.force_login(user)
    return client
