"""Alert rules and dashboard use only names and labels that ``/metrics`` really gives."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
from django.db import transaction
from django.test import Client
from prometheus_client.parser import text_string_to_metric_families
from pytest_django import Settings

from dbresilience.monitor.samples import sample_once
from outbox.errors import ErrorClass
from outbox.kafka import KafkaSubscriber
from outbox.models import InboxPartition, ParkedMessage
from outbox.publishing import publish
from outbox.relay import relay_until_idle
from tests.outbox.collecting import Collector, refusing
from tests.outbox.conftest import new, only

pytestmark = pytest.mark.feature("D7", "D16")

ROOT: Final = Path(__file__).resolve().parent.parent.parent
FOLDER: Final = ROOT / "docs" / "observability"
RULES: Final = FOLDER / "alerts.yml"
DASHBOARD: Final = json.loads((FOLDER / "dashboard.json").read_text())

NAME: Final = re.compile(r"\bzenskar_[a-z0-9_]+")
SELECTED: Final = re.compile(r"(zenskar_[a-z0-9_]+)\{([^}]*)\}")
GROUPED: Final = re.compile(r"\bby \(([^)]*)\) \((?:rate\(|increase\()?(zenskar_[a-z0-9_]+)")


def panels() -> list[dict[str, Any]]:
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def rules() -> list[str]:
    """The expressions of the alert rules."""
    text = re.sub(r"(?m)^\s*#.*$", "", RULES.read_text())
    return re.findall(r"expr: (?:\|\n)?(.*?)(?=\n\s+(?:for|labels):)", text, re.DOTALL)


def expressions() -> list[str]:
    found = [target["expr"] for panel in panels() for target in panel["targets"]]
    found += [one["definition"] for one in DASHBOARD["templating"]["list"] if "definition" in one]
    return found + rules()


@pytest.fixture
def given(transactional_db: None, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> dict[str, set[str]]:
    """By name of a sample on the page, the labels that it has there."""
    settings.METRICS_TOKEN = "s3cret-token"
    collector = Collector()
    collector.refuse = refusing("bad", error_class=ErrorClass.PERMANENT)
    only(monkeypatch, collector, KafkaSubscriber())
    with transaction.atomic():
        for aggregate in ("bad", "good"):
            publish(new(aggregate))
    relay_until_idle()
    _consumed()
    sample_once()
    Client().get("/api/v1/customers/")

    page = Client().get("/metrics", headers={"Authorization": "Bearer s3cret-token"}).content.decode()

    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def _consumed() -> None:
    """A partition of a consumer, and a dead message of it."""
    InboxPartition.objects.create(consumer_group="shipping", topic="orders", partition=0)
    place = {"consumer_group": "shipping", "topic": "orders", "partition": 0, "offset": 7}
    ParkedMessage.objects.create(**place, event_id="e", aggregate_id="o", timestamp=0, headers=[], state="dead")


def test_it_uses_only_names_that_exist(given: dict[str, set[str]]) -> None:
    used = {name for expression in expressions() for name in NAME.findall(expression)}

    assert len(used) > 20
    assert used - given.keys() == set()


def test_it_uses_only_labels_that_exist(given: dict[str, set[str]]) -> None:
    wanted: list[tuple[str, str]] = []
    for expression in expressions():
        for name, selectors in SELECTED.findall(expression):
            wanted += [(name, label) for label in re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selectors)]
        for labels, name in GROUPED.findall(expression):
            wanted += [(name, label.strip()) for label in labels.split(",")]

    assert len(wanted) > 30
    assert [one for one in wanted if one[1] not in given[one[0]]] == []


def test_it_gives_all_names_that_were_promised(given: dict[str, set[str]]) -> None:
    by_topic = {"subscriber", "topic"}

    assert given["zenskar_outbox_pending_events"] == by_topic
    assert given["zenskar_outbox_failed_events"] == {*by_topic, "state"}
    for name in ("processed", "errors", "retries"):
        assert given[f"zenskar_outbox_{name}_total"] == by_topic
    assert given["zenskar_outbox_processing_duration_seconds_bucket"] == {"subscriber", "le"}
    assert given["zenskar_kafka_connected"] == set()


def test_each_alert_links_to_a_page_that_exists() -> None:
    links = re.findall(r"runbook_url: (\S+)", RULES.read_text())

    assert len(links) == len(rules()) > 10
    assert [link for link in links if not (ROOT / link).is_file()] == []


@pytest.mark.parametrize("arguments", [("check", "rules", "alerts.yml"), ("test", "rules", "alerts_test.yml")])
def test_its_rules_are_rules(arguments: tuple[str, ...]) -> None:
    assert all(rule.count("(") == rule.count(")") for rule in rules())
    # Debian's package prometheus has it; where it is missing, the names above are what is known.
    if tool := shutil.which("promtool"):
        ran = subprocess.run([tool, *arguments], cwd=FOLDER, capture_output=True, text=True, timeout=60)
        assert ran.returncode == 0, ran.stdout + ran.stderr


def test_its_dashboard_is_one_that_grafana_takes() -> None:
    places = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    taken = [
        (column, line)
        for place in places
        for column in range(place["x"], place["x"] + place["w"])
        for line in range(place["y"], place["y"] + place["h"])
    ]

    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    assert DASHBOARD["schemaVersion"] >= 36
    assert max(place["x"] + place["w"] for place in places) <= 24
    assert len(taken) == len(set(taken))
    assert {panel["datasource"]["uid"] for panel in panels()} == {"${datasource}"}
    assert all(panel["targets"] for panel in panels())
