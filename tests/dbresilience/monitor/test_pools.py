from __future__ import annotations

import datetime as dt

import pytest
from django.db import OperationalError
from django.utils import timezone

from dbresilience.models import ProcessReport, Tally
from dbresilience.monitor.figures import figures_now
from dbresilience.monitor.health import database_health
from dbresilience.observations.errors import POOL_EXHAUSTED
from dbresilience.observations.names import TallyName
from dbresilience.observations.processes import process_name
from dbresilience.observations.writer import observations_write
from tests.dbresilience.backends import in_threads, one, pool_of, pooled_alias

pytestmark = [pytest.mark.feature("A2", "A7", "B2")]


def test_it_reports_this_process_to_all(settings: object) -> None:
    settings.DB_POOL_SIZE, settings.DB_MAX_OVERFLOW = 3, 1  # type: ignore[attr-defined]
    with pooled_alias():
        assert one("SELECT 1") == 1
        observations_write()
        health = database_health()

    report = ProcessReport.objects.get()
    assert report.process == process_name()
    assert (report.pools[0]["size"], report.pools[0]["borrowed"]) == (3, 1)
    assert health["connection_pool"]["checked_out"] == 1
    assert health["connection_pool"]["total_connections"] == 1
    assert health["connection_pool"]["utilization_percent"] == 25.0
    assert health["connection_pool"]["wait_ms"]["p99"] > 0


def test_it_adds_up_processes_and_forgets_those_that_fell_silent() -> None:
    with pooled_alias():
        assert one("SELECT 1") == 1
        observations_write()
    known = ProcessReport.objects.get()
    for name, age in (("a:1:1", 5), ("b:2:1", 90)):
        ProcessReport.objects.create(
            process=name, reported_at=timezone.now() - dt.timedelta(seconds=age), pools=known.pools
        )

    pools = figures_now(deep=False)["pools"]

    assert [process["process"] for process in pools["processes"]] == sorted(["a:1:1", known.process])
    assert pools["total"]["borrowed"] == 2


def test_it_alerts_when_a_pool_is_nearly_full(settings: object) -> None:
    settings.DB_POOL_SIZE, settings.DB_MAX_OVERFLOW = 1, 0  # type: ignore[attr-defined]
    with pooled_alias():
        assert one("SELECT 1") == 1
        health = database_health()

    assert [alert["code"] for alert in health["alerts"]] == ["pool_near_exhaustion"]
    assert health["summary"]["status"] == "degraded"


def test_it_shows_those_it_sent_away_in_every_figure(settings: object) -> None:
    settings.DB_POOL_SIZE, settings.DB_MAX_OVERFLOW = 1, 0  # type: ignore[attr-defined]
    settings.DB_POOL_TIMEOUT = 0.1  # type: ignore[attr-defined]

    with pooled_alias() as wrapper:
        held = one("SELECT pg_backend_pid()")
        errors = in_threads(3, lambda _: one("SELECT 1"))
        stats = pool_of(wrapper).stats()

    observations_write()
    assert held and [type(error) for error in errors] == [OperationalError] * 3
    assert (stats.timeouts, stats.waiting, stats.wait.count) == (3, 0, 4)
    assert stats.wait.slowest is not None and stats.wait.slowest >= 100
    assert Tally.objects.get(name=TallyName.ERROR, key=POOL_EXHAUSTED).count == 3
