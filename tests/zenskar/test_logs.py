from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import structlog
from django.conf import settings as django_settings
from django.test import Client

from operations.correlation import correlation_bound
from operations.keys import IssuedKey
from operations.tracing import trace_valid
from tests.capturing import Capture, captured, formatter
from zenskar.logs import MASK, mask_secrets

pytestmark = pytest.mark.feature("A13")


@pytest.fixture
def capture() -> Iterator[Capture]:
    with captured() as handler:
        yield handler


def test_it_writes_json_with_the_correlation_id(capture: Capture) -> None:
    with correlation_bound("order-17"):
        structlog.get_logger("zenskar.test").info("published", position=7)
        logging.getLogger("some.library").warning("slow: %s", "yes")

    ours, theirs = capture.lines()
    assert (ours["event"], ours["position"], ours["level"]) == ("published", 7, "info")
    assert theirs["event"] == "slow: yes"
    assert ours["correlation_id"] == theirs["correlation_id"] == "order-17"
    assert ours["timestamp"].endswith("Z")


def test_it_writes_readable_lines_on_a_terminal() -> None:
    record = logging.LogRecord("zenskar", logging.INFO, __file__, 1, "hello %s", ("you",), None)

    line = formatter("console").format(record)

    assert "hello you" in line
    assert not line.startswith("{")


def test_it_tells_the_configuration_without_changing_that_of_loggers_in_use() -> None:
    before = structlog.get_config()["processors"]

    formatter("json")

    assert structlog.get_config()["processors"] is before


@pytest.mark.parametrize(
    "secret",
    [
        "sk_test_4eC39HqLyjWDarjtT1zdp7dc",
        "rk_live_4eC39HqLyjWDarjtT1zdp7dc",
        "whsec_abcdef0123456789",
        "zk_0123456789ab_" + "A" * 43,
        "postgresql://zenskar:hunter2@db.example/zenskar",
        "rediss://:hunter2@redis.example/0",
    ],
)
def test_it_masks_secrets_wherever_they_stand(capture: Capture, secret: str) -> None:
    log = structlog.get_logger("zenskar.test")

    log.info(f"it says {secret}", value=secret, deep={"list": [f"x {secret} y"]})
    try:
        raise RuntimeError(f"refused {secret}")
    except RuntimeError:
        log.exception("failed")

    written = "\n".join(capture.text)
    assert MASK in written
    assert secret not in written
    assert "hunter2" not in written


def test_it_masks_values_by_their_names() -> None:
    event = {"password": "a", "Authorization": "b", "stripe_api_key": "c", "REDIS_URL": "d", "token": "", "key": "e"}

    masked = mask_secrets(None, "info", dict(event))

    assert masked == {
        "password": MASK,
        "Authorization": MASK,
        "stripe_api_key": MASK,
        "REDIS_URL": MASK,
        "token": "",
        "key": "e",
    }


def test_it_quotes_no_rows_and_no_local_variables(capture: Capture) -> None:
    def fail() -> None:
        body = "jane@example.com"
        raise RuntimeError("duplicate key\nDETAIL:  Key (email)=(joe@example.com) already exists." + body[:0])

    try:
        fail()
    except RuntimeError:
        structlog.get_logger("zenskar.test").exception("failed")

    written = "\n".join(capture.text)
    assert "duplicate key" in written
    assert "jane@" not in written
    assert "joe@" not in written


@pytest.mark.django_db
def test_it_writes_one_line_a_request_without_key_query_and_body(capture: Capture, issued: IssuedKey) -> None:
    client = Client(headers={"Authorization": issued.authorization, "X-Correlation-ID": "order-18"})
    capture.text.clear()

    client.post("/api/v1/customers/?email=jane@example.com", b'{"nmae": "Joe"}', content_type="application/json")
    client.get("/livez")

    (line,) = [line for line in capture.lines() if line["event"] == "request_finished"]
    assert line["request"] == "POST /api/v1/customers/"
    assert (line["code"], line["actor"], line["correlation_id"]) == (400, f"key:{issued.key.prefix}", "order-18")
    assert line["duration_ms"] > 0
    written = "\n".join(capture.text)
    assert "jane@" not in written
    assert "nmae" not in written
    assert issued.token not in written


@pytest.mark.django_db
@pytest.mark.urls("tests.operations.probe_urls")
def test_it_writes_the_trace_of_a_fault(capture: Capture) -> None:
    Client(raise_request_exception=False).get("/api/crash", headers={"X-Correlation-ID": "order-19"})

    (line,) = [line for line in capture.lines() if line["event"] == "request_failed"]
    assert line["correlation_id"] == "order-19"
    assert line["exception"][0]["exc_type"] == "RuntimeError"
    assert line["exception"][0]["frames"]


def test_it_names_a_fault_alike_whatever_the_values(capture: Capture) -> None:
    log = structlog.get_logger("zenskar.test")

    for text in ("for order 17", "for order 18"):
        try:
            correlation_bound(text.encode()).__enter__()  # type: ignore[arg-type]
        except TypeError:
            log.exception("failed")
    try:
        trace_valid(17)  # type: ignore[arg-type]
    except TypeError as exc:
        log.error("failed", exc_info=exc)
    logging.getLogger("some.library").error("no trace")

    first, second, other, plain = capture.lines()
    assert first["fault"] == second["fault"] != other["fault"]
    assert len(first["fault"]) == 12
    assert "fault" not in plain


def test_it_is_the_logging_in_force() -> None:
    assert set(django_settings.LOGGING["handlers"]) == {"stderr"}
    assert django_settings.LOGGING["loggers"]["django.request"]["level"] == "CRITICAL"
