from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from django.core import mail
from django.core.exceptions import ImproperlyConfigured
from django.db import connection

from operations.alerts import sources
from operations.alerts.channels import webhook_signature
from operations.alerts.checking import alerts_check_once
from operations.alerts.conf import alert_settings
from operations.alerts.own import database, operations, troubles
from operations.alerts.sending import MOST_ATTEMPTS, alerts_send_once
from operations.alerts.sources import Condition
from operations.models import Alert, AlertLevel, AlertNotice, Operation
from operations.troubles.services import trouble_note
from tests.customers.races import in_threads
from tests.operations.conftest import MakeClient
from tests.operations.troubles.conftest import Leaks, leaks

__all__ = ["leaks"]
pytestmark = [pytest.mark.django_db, pytest.mark.feature("B1", "A13")]

SECRET = b"0123456789abcdef"


class Weather:
    """A source of alerts that says what the test says."""

    def __init__(self) -> None:
        self.now: list[Condition] = []

    def rains(self, level: AlertLevel = AlertLevel.WARNING) -> None:
        self.now = [Condition(key="rain", level=level, title="It rains", message="Take an umbrella.")]

    def __call__(self) -> list[Condition]:
        return self.now


@pytest.fixture
def weather(monkeypatch: pytest.MonkeyPatch) -> Weather:
    """The only source."""
    found = Weather()
    monkeypatch.setattr(sources, "_sources", {"weather": found})
    return found


class Receiver:
    """Takes webhooks on this machine and answers what the test says."""

    def __init__(self) -> None:
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.statuses: list[int] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.got.append(({name.lower(): value for name, value in self.headers.items()}, body))
                self.send_response(outer.statuses.pop(0) if outer.statuses else 204)
                self.send_header("Location", outer.url + "/elsewhere")
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def receiver(settings: Any) -> Iterator[Receiver]:
    found = Receiver()
    thread = threading.Thread(target=found.server.serve_forever)
    thread.start()
    settings.ALERT_CHANNELS = "webhook"
    settings.ALERT_WEBHOOK_URL = found.url + "/hook"
    settings.ALERT_WEBHOOK_SECRET = "whsec_" + base64.b64encode(SECRET).decode()
    yield found
    found.server.shutdown()
    thread.join()
    found.server.server_close()


def due_now() -> None:
    AlertNotice.objects.update(next_attempt_at="2020-01-01T00:00:00Z")


def kinds() -> list[str]:
    return list(AlertNotice.objects.order_by("pk").values_list("kind", flat=True))


def test_it_tells_once_and_says_when_it_is_over(weather: Weather) -> None:
    weather.rains()
    for _ in range(3):
        alerts_check_once()
    weather.now = []
    alerts_check_once()
    alerts_check_once()

    assert kinds() == ["raised", "ended"]
    alert = Alert.objects.get()
    assert (alert.key, alert.title) == ("weather:rain", "It rains")
    assert alert.ended_at is not None


def test_it_tells_again_after_the_quiet_period_and_when_it_gets_worse(weather: Weather, settings: Any) -> None:
    weather.rains()
    alerts_check_once()
    weather.rains(AlertLevel.CRITICAL)
    alerts_check_once()
    weather.rains()
    alerts_check_once()
    assert kinds() == ["raised", "reminded"]

    Alert.objects.update(noticed_at="2020-01-01T00:00:00Z")
    alerts_check_once()

    assert kinds() == ["raised", "reminded", "reminded"]


def test_it_tells_anew_of_what_comes_back(weather: Weather) -> None:
    for raining in (True, False, True):
        weather.now = []
        if raining:
            weather.rains()
        alerts_check_once()

    assert kinds() == ["raised", "ended", "raised"]
    assert Alert.objects.count() == 2


@pytest.mark.django_db(transaction=True)
def test_it_tells_once_however_many_check_and_send(weather: Weather, receiver: Receiver) -> None:
    weather.rains()

    assert in_threads(*[alerts_check_once] * 6) == []
    assert in_threads(*[alerts_send_once] * 6) == []

    assert kinds() == ["raised"]
    assert len(receiver.got) == 1


def test_it_goes_on_when_one_source_fails(weather: Weather, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> list[Condition]:
        raise ValueError("no forecast")

    monkeypatch.setattr(sources, "_sources", {"broken": broken, "weather": weather})
    weather.rains()

    assert alerts_check_once() == 1


def test_it_signs_webhooks_by_the_standard(weather: Weather, receiver: Receiver) -> None:
    weather.rains(AlertLevel.CRITICAL)
    alerts_check_once()

    assert alerts_send_once() == 1

    headers, body = receiver.got[0]
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = "v1," + base64.b64encode(hmac.new(SECRET, signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == expected
    document = json.loads(body)
    assert document["type"] == "alert.raised"
    assert document["data"]["key"] == "weather:rain"
    assert document["data"]["level"] == "critical"
    assert AlertNotice.objects.get().state == "sent"


def test_it_signs_as_the_standards_own_example() -> None:
    secret = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    body = b'{"test": 2432232314}'

    signature = webhook_signature(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", body)

    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize("status", [302, 400, 500])
def test_it_sends_again_with_the_same_id_until_it_goes(weather: Weather, receiver: Receiver, status: int) -> None:
    receiver.statuses = [status]
    weather.rains()
    alerts_check_once()

    assert alerts_send_once() == 0
    assert alerts_send_once() == 0
    due_now()
    assert alerts_send_once() == 1

    assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 1
    assert len(receiver.got) == 2


def test_it_gives_up_in_the_end_and_says_so(weather: Weather, receiver: Receiver) -> None:
    receiver.statuses = [500] * 20
    weather.rains()
    alerts_check_once()

    for _ in range(MOST_ATTEMPTS + 2):
        due_now()
        alerts_send_once()

    notice = AlertNotice.objects.get()
    assert (notice.state, notice.attempts) == ("failed", MOST_ATTEMPTS)
    assert "500" in notice.error


def test_it_sends_by_mail_and_log_too(weather: Weather, settings: Any, caplog: pytest.LogCaptureFixture) -> None:
    settings.ALERT_CHANNELS = "email, log"
    settings.ALERT_EMAILS = "ops@example.com"
    weather.rains()
    weather.now[0] = Condition(key="rain", level=AlertLevel.WARNING, title="It\nrains", message="Now.")
    alerts_check_once()

    assert alerts_send_once() == 2

    assert mail.outbox[0].subject == "[Zenskar] warning: It rains"
    assert mail.outbox[0].to == ["ops@example.com"]
    assert any("weather:rain" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"ALERT_CHANNELS": "pigeon"}, "pigeon"),
        ({"ALERT_CHANNELS": "email"}, "ALERT_EMAILS"),
        ({"ALERT_CHANNELS": "webhook", "ALERT_WEBHOOK_URL": "ftp://x"}, "ALERT_WEBHOOK_URL"),
        ({"ALERT_CHANNELS": "webhook", "ALERT_WEBHOOK_URL": "https://x"}, "ALERT_WEBHOOK_SECRET"),
        ({"ALERT_WEBHOOK_SECRET": "whsec_ä"}, "ALERT_WEBHOOK_SECRET"),
        ({"ALERT_QUIET_SECONDS": "often"}, "ALERT_QUIET_SECONDS"),
        ({"ALERT_TIMEOUT": 0}, "ALERT_TIMEOUT"),
    ],
)
def test_it_checks_its_settings(settings: Any, values: dict[str, Any], word: str) -> None:
    assert alert_settings().channels == ("log",)

    for name, value in values.items():
        setattr(settings, name, value)

    with pytest.raises(ImproperlyConfigured, match=word):
        alert_settings()


def test_it_tells_of_troubles_that_nobody_put_off(leaks: Leaks) -> None:
    trouble_note(
        source=leaks,
        fingerprint="drip",
        actor="user:ann",
        snoozed_until=leaks.groups()[0].last_seen.replace(year=2999),
    )

    found = list(troubles())

    assert [one.key for one in found] == ["leaks:burst"]
    assert "<burst>" not in found[0].message


def test_it_tells_of_operations_that_stopped() -> None:
    Operation.objects.create(
        kind="k", filter={}, reason="r", actor="a", eligible=1, state="paused", note="60% failed; it stops above 50%."
    )

    assert [one.message for one in operations()] == ["60% failed; it stops above 50%."]


def test_it_tells_of_the_database(monkeypatch: pytest.MonkeyPatch) -> None:
    alert = {"code": "deadlocks", "level": "critical", "message": "Too many."}
    monkeypatch.setattr("operations.alerts.own.database_health", lambda: {"alerts": [alert]})

    assert [(one.key, one.level) for one in database()] == [("deadlocks", AlertLevel.CRITICAL)]


def test_it_shows_alerts_in_the_console(weather: Weather, staff_client: MakeClient) -> None:
    weather.rains()
    alerts_check_once()
    alert = Alert.objects.get()
    client = staff_client("viewer")

    assert "It rains" in client.get("/admin/operations/alert/").content.decode()
    assert "raised by log: pending" in client.get(f"/admin/operations/alert/{alert.pk}/change/").content.decode()


def test_it_lets_one_alert_of_a_key_be_open() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT indexdef FROM pg_indexes WHERE indexname = 'operations_alert_open_uniq'")
        assert "UNIQUE" in cursor.fetchone()[0]
