from __future__ import annotations

import datetime as dt
import re
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from dbresilience.models import Deadlock, Sample, Tally
from operations.database.charts import WIDTH
from operations.database.history import charts
from operations.models import AuditEntry
from tests.operations.conftest import MakeClient

pytestmark = [pytest.mark.feature("B8"), pytest.mark.django_db(transaction=True)]


def figures(number: int) -> dict[str, Any]:
    return {
        "response_ms": 0.2 + number % 7 / 10,
        "server": {"client_connections": 9, "max_connections": 100},
        "connections": {"total": 9, "by_state": {"active": number % 5, "idle": 4}, "waiting_for_locks": 0},
        "database": {
            "commits": number * 6000,
            "rollbacks": number * 60,
            "deadlocks": 0,
            "bytes": 10**9,
            "cache_hit_rate": 0.99,
        },
        "pools": {"total": {"borrowed": number % 20, "open": 20, "waiting": 0, "utilisation_percent": 12.5}},
        "last_hour": {"average_ms": 1.5, "errors": 3, "timeouts": 0},
        "blocked_sessions": 0,
    }


@pytest.fixture
def history(transactional_db: None) -> None:
    now = timezone.now().replace(second=0, microsecond=0)
    Sample.objects.bulk_create(Sample(minute=now - dt.timedelta(minutes=n), figures=figures(60 - n)) for n in range(60))


def test_it_draws_the_history_without_style_or_script(history: None, staff_client: MakeClient) -> None:
    answer = staff_client("viewer").get("/admin/database/?range=1h")

    page = answer.content.decode()
    assert answer.status_code == 200
    assert page.count('<svg class="chart-svg"') >= 7
    assert " style=" not in page
    assert "unsafe-inline" not in answer["Content-Security-Policy"]
    main = page.split('id="content"')[1]
    assert "<script" not in main
    assert "committed <strong>100 /s" in main


@pytest.mark.parametrize("path", ["/admin/database", "/admin/database/", "/admin/database/?range=nonsense"])
def test_it_opens_without_any_sample(staff_client: MakeClient, path: str) -> None:
    answer = staff_client("viewer").get(path)

    assert answer.status_code == 200
    assert "Nothing measured in this time" in answer.content.decode()


def test_it_is_shown_to_who_may_see_operations(staff_client: MakeClient) -> None:
    stranger = Client().get("/admin/database/")
    nobody = staff_client().get("/admin/database/")

    assert stranger.status_code == 302
    assert nobody.status_code == 403


def test_it_shows_deadlocks_and_escapes_what_it_shows(staff_client: MakeClient) -> None:
    Deadlock.objects.create(
        at=timezone.now(), tables=["a", "b"], waited_statement="<script>x</script>", fingerprint="f", processes=2
    )

    page = staff_client("viewer").get("/admin/database/").content.decode()

    assert "Lock them in one order everywhere: a, then b." in page
    assert "<script>x" not in page


def test_it_runs_diagnostics_for_operators_and_audits_them(staff_client: MakeClient) -> None:
    refused = staff_client("viewer").post("/admin/database/")
    answer = staff_client("operator").post("/admin/database/")

    assert refused.status_code == 403
    assert "The server answers." in answer.content.decode()
    assert AuditEntry.objects.get(action="database.diagnosed").actor == "user:operator"


def test_it_needs_the_csrf_token(staff_client: MakeClient) -> None:
    client = staff_client("operator")
    client.handler.enforce_csrf_checks = True

    assert client.post("/admin/database/").status_code == 403


def test_it_has_a_tile_on_the_first_page(history: None, staff_client: MakeClient) -> None:
    page = staff_client("viewer").get("/admin/").content.decode()

    assert "9 of 100" in page
    assert 'href="/admin/database/"' in page


def test_it_says_when_sampling_has_stopped(staff_client: MakeClient) -> None:
    Sample.objects.create(minute=timezone.now() - dt.timedelta(hours=2), figures=figures(1))

    assert "last sample" in staff_client("viewer").get("/admin/").content.decode()


def test_it_shows_errors_by_sqlstate(staff_client: MakeClient) -> None:
    Tally.objects.create(span=timezone.now(), name="error", key="40P01", count=12)

    page = staff_client("viewer").get("/admin/database/").content.decode()

    assert re.search(r"<code>40P01</code></td><td class=\"n\">12</td>", page)


def test_it_begins_its_charts_with_the_first_sample(history: None) -> None:
    (chart, *_) = charts(24)

    # Sixty minutes over the whole breadth, not at the edge of a day.
    (points,) = re.findall(r'chart-line c1" points="([^"]+)"', chart.svg)
    first, *_, last = (float(point.split(",")[0]) for point in points.split())
    assert last - first > WIDTH / 2


def test_one_deadlock_is_one_and_not_a_rate(history: None) -> None:
    newest = Sample.objects.latest("minute")
    newest.figures["database"]["deadlocks"] = 1
    newest.save()

    legends = {chart.title: chart.legend for chart in charts(1)}

    assert legends["Deadlocks since the point before"] == [("seen by the server", "1", 1)]
    assert [label for label, *_ in legends["Errors and time-outs, last hour"]] == ["errors", "time-outs"]


def test_it_says_when_its_history_begins_and_writes_times_as_everywhere(
    history: None, staff_client: MakeClient
) -> None:
    day = staff_client("viewer").get("/admin/database/?range=24h").content.decode()

    assert re.search(r"measured since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d<", day)
    assert re.search(r"measured \d{4}-\d\d-\d\d \d\d:\d\d:\d\d<", day)
    assert not re.search(r"\d{4}-\d\d-\d\dT", day)
