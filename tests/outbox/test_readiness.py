from __future__ import annotations

import pytest
from django.db import connection
from django.test import Client

from outbox.readiness import relay_check
from outbox.relay import relay_once
from outbox.subscriptions import subscription_pause
from tests.outbox.collecting import Collector
from tests.outbox.conftest import publish_all
from zenskar.health import _reports

pytestmark = [pytest.mark.feature("A10", "D4")]


def make_older(seconds: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute("UPDATE outbox_event SET created_at = created_at - make_interval(secs => %s)", [seconds])


def test_it_is_content_while_events_are_young(collector: Collector) -> None:
    publish_all("a")
    make_older(50)

    assert relay_check() == ""


def test_it_says_when_nobody_sequences(collector: Collector) -> None:
    publish_all("a")
    make_older(75)

    assert relay_check().startswith("events wait for 7")


def test_it_says_when_a_subscriber_is_behind(collector: Collector, client: Client) -> None:
    publish_all("a")
    relay_once()
    with connection.cursor() as cursor:
        cursor.execute("UPDATE outbox_lane SET cursor = 0")
    make_older(75)

    waiting = relay_check()
    _reports.forget()
    report = client.get("/readyz").json()
    subscription_pause(name="collector", reason="a person wants it so")

    assert waiting.startswith("events wait for 7")
    assert report["status"] == "degraded"
    assert report["components"]["relay"]["detail"].startswith("events wait for 7")
    assert relay_check() == ""
