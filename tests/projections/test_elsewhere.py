"""Read models where the other apps are shown: troubles, metrics, beat, the relay, settings."""

from __future__ import annotations

import pytest
from django.conf import LazySettings
from django.core import checks

from operations.alerts.checking import alerts_check_once
from operations.metrics import metrics_page
from operations.models import Alert
from operations.troubles.services import troubles_page, troubles_retry
from operations.troubles.sources import sources
from outbox.relaying import Relay
from projections.checks import check_projections
from projections.models import Detour, Failure
from projections.rebuilding import rebuild_start
from projections.resolving import failure_resolve
from projections.runner import projections_run_once
from projections.troubles import ManualFailures
from projections.waiting import wait_for
from tests.projections.conftest import accounts, deposit, live, publish_deposits
from tests.projections.models_of_tests import Days, Totals

PATH = "tests.projections.models_of_tests"


@pytest.fixture
def manual(totals: type[Totals]) -> list[str]:
    publish_deposits(*[deposit(f"bad{n}", -500) for n in range(4)], deposit("odd", type="exploded"))
    projections_run_once()
    Failure.objects.update(state="manual", next_retry_at=None)
    Detour.objects.update(due=None)
    return [str(key) for key in Failure.objects.order_by("-pk").values_list("pk", flat=True)]


@pytest.mark.feature("E3", "H4")
def test_failures_that_need_a_person_are_troubles(manual: list[str]) -> None:
    source = ManualFailures()

    found, _ = troubles_page([source], fingerprint=None, place=("", ""), limit=10)
    groups = source.groups()
    retried = troubles_retry(source=source, actor="user:ann", reason="mended", fingerprint=groups[0].fingerprint)

    assert "read_models" in {one.name for one in sources()}
    assert [trouble.id for _, trouble in found] == manual
    assert [(group.code, group.count) for group in groups] == [("IntegrityError", 4), ("unknown_type", 1)]
    assert "Failing row" not in "".join(group.message for group in groups)
    assert len(retried) == 4
    assert source.counts() == {"manual": 1}
    assert [one.id for one in source.troubles(ids=["x", "0", manual[0]])] == [manual[0]]


@pytest.mark.feature("E5")
def test_prometheus_sees_them(manual: list[str]) -> None:
    page = metrics_page()[0].decode()

    assert 'zenskar_projection_active_failures{projection="totals",state="live"} 5.0' in page
    assert 'zenskar_projection_lag_events{projection="totals",state="live"} 0.0' in page
    assert 'zenskar_projection_events_total{projection="totals",state="live"} 0.0' in page


@pytest.mark.feature("E8")
def test_somebody_is_told_when_a_read_model_is_not_well(totals: type[Totals], settings: LazySettings) -> None:
    settings.PROJECTIONS_ALERT_FAILURES = 2
    publish_deposits(*[deposit(f"bad{n}", -500) for n in range(12)])
    projections_run_once()
    rebuild_start(name="totals", actor="user:ann")
    projections_run_once()

    alerts_check_once()
    raised = set(Alert.objects.filter(source="projections", ended_at=None).values_list("key", "level"))
    for failure in Failure.objects.filter(build=live()):
        failure_resolve(failure_id=failure.pk, strategy="skip", actor="user:ann")
    projections_run_once()
    alerts_check_once()

    assert raised == {
        ("projections:totals:critical", "critical"),
        ("projections:totals:many_failures", "warning"),
    }
    assert not Alert.objects.filter(source="projections", ended_at=None).exists()


@pytest.mark.feature("H3")
def test_the_relay_keeps_them_up_to_date(totals: type[Totals], settings: LazySettings) -> None:
    settings.OUTBOX_SUBSCRIBERS = []
    settings.OUTBOX_RELAY_COMPANIONS = ["projections.runner.projections_run_once"]
    settings.OUTBOX_POLLING_INTERVAL = 5.0
    relay = Relay()
    relay.start()
    try:
        (first,) = publish_deposits("a")
        wait_for(first, "totals", 60)
        (second,) = publish_deposits("a")
        status = wait_for(second, "totals", 3)
    finally:
        assert relay.stop()

    assert status.value == "applied"
    assert accounts() == {"a": (2, 2)}


class Nameless:
    pass


class Unforgetting(Days):
    name = "unforgetting"
    tables = ()
    keyed_by = "account"


class Rival(Days):
    name = "rival"


@pytest.mark.parametrize(
    ("listed", "error"),
    [
        ([f"{PATH}.Totals", f"{PATH}.TotalsAgain", f"{PATH}.Days"], None),
        ([f"{PATH}.Nothing"], "projections.E002"),
        ([f"{PATH}.Totals", f"{PATH}.Totals"], "projections.E003"),
        ([f"{__name__}.Nameless"], "projections.E003"),
        ([f"{PATH}.Days", f"{__name__}.Rival"], "projections.E004"),
        ([f"{__name__}.Unforgetting"], "projections.E005"),
    ],
)
def test_wrong_lists_are_refused_at_start(settings: LazySettings, listed: list[str], error: str | None) -> None:
    settings.PROJECTIONS = listed

    found: list[checks.CheckMessage] = check_projections()

    assert [one.id for one in found] == ([error] if error else [])
