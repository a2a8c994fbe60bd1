from __future__ import annotations

import pytest
from django.db import connection
from django.utils import timezone

from dbresilience.models import Tally
from dbresilience.monitor.health import database_health
from dbresilience.observations.writer import observations_write
from dbresilience.transactions import run_in_transaction
from tests.dbresilience.backends import pooled_alias
from tests.dbresilience.proxy import Proxy

pytestmark = [pytest.mark.feature("A4", "B4", "B8")]


def test_it_counts_an_answer_to_commit_that_was_lost(accounts: str) -> None:
    settings = connection.settings_dict

    def work() -> None:
        with connection.cursor() as cursor:
            cursor.execute("UPDATE account SET balance = 1 WHERE id = 1")

    with (
        Proxy(settings["HOST"], int(settings["PORT"])) as proxy,
        pooled_alias(HOST="127.0.0.1", PORT=str(proxy.port)),
    ):
        proxy.lose_commits = 1
        run_in_transaction(work)
    observations_write()

    health = database_health()

    assert health["reliability"]["commit_answers_lost_24h"] == {"committed": 1}
    assert health["summary"]["status"] == "healthy"


def test_it_raises_an_alert_while_nobody_knows_what_became_of_a_commit() -> None:
    Tally.objects.create(span=timezone.now(), name="commit_resolved", key="unknown", count=1)

    health = database_health()

    assert [alert["code"] for alert in health["alerts"]] == ["commits_unknown"]
    assert health["summary"]["status"] == "unhealthy"


@pytest.mark.parametrize(("recovered", "given_up", "codes"), [(95, 5, []), (85, 15, ["retries_fail"])])
def test_it_judges_recoveries_by_the_threshold(recovered: int, given_up: int, codes: list[str]) -> None:
    Tally.objects.create(span=timezone.now(), name="retry_recovered", key="40P01", count=recovered)
    Tally.objects.create(span=timezone.now(), name="retry_given_up", key="40P01", count=given_up)

    health = database_health()

    assert health["reliability"]["recovery_success_rate"] == recovered / 100
    assert [alert["code"] for alert in health["alerts"]] == codes


def test_it_keeps_what_callers_and_contention_caused_apart_from_errors(settings: object) -> None:
    settings.DB_ALERT_ERRORS_PER_HOUR = 3  # type: ignore[attr-defined]
    for key, count in (("23505", 500), ("40001", 9), ("53100", 2)):
        Tally.objects.create(span=timezone.now(), name="error", key=key, count=count)

    below = database_health()
    Tally.objects.filter(key="53100").update(count=3)
    at_threshold = database_health()

    performance = below["performance"]
    assert (performance["errors_last_hour"], performance["violations_last_hour"]) == (2, 500)
    assert performance["contention_last_hour"] == 9
    assert below["alerts"] == []
    assert at_threshold["alerts"][0]["message"] == "3 errors in the last hour, most of them 53100."
