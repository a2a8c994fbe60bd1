"""Spans, as OpenTelemetry's SDK keeps them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.db import transaction
from django.test import Client
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from customers.sync.runner import sync_due_once
from operations.keys import IssuedKey
from operations.recording import OpenTelemetryRecorder
from operations.tracing import recorder_set, step
from outbox.models import StoredEvent
from outbox.publishing import publish_many
from outbox.relay import relay_once
from tests.customers.stripe.conftest import sandbox, stripe_server
from tests.outbox.collecting import Collector
from tests.outbox.conftest import collector, new
from tests.zenskar.test_following import TRACE, TRACEPARENT, topic
from zenskar.sandbox.stripe.core import StripeSandbox

__all__ = ["collector", "sandbox", "stripe_server", "topic"]

pytestmark = [pytest.mark.feature("A13")]

ROOT = Path(__file__).resolve().parent.parent.parent
START = """
import sys
{before}
import django
django.setup()
from django.core.management import call_command
from operations.tracing import step
with step("work"):
    pass
loaded = sorted(name for name in sys.modules if name.startswith(("opentelemetry.sdk.trace", "opentelemetry.exporter")))
print("loaded:", len(loaded))
call_command("check", databases=[])
"""
MISSING = "sys.modules['opentelemetry'] = None"


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    recorder_set(OpenTelemetryRecorder(provider))
    yield exporter
    recorder_set(None)
    provider.shutdown()


def by_name(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {span.name: span for span in exporter.get_finished_spans()}


def id_of(span: ReadableSpan) -> int:
    context = span.get_span_context()
    assert context is not None
    return context.span_id


@pytest.mark.django_db(transaction=True)
def test_it_makes_one_trace_of_a_change(
    spans: InMemorySpanExporter, topic: str, sandbox: StripeSandbox, issued: IssuedKey
) -> None:
    client = Client(headers={"Authorization": issued.authorization, "traceparent": TRACEPARENT})

    answer = client.post("/api/v1/customers/", {"name": "Ada"}, content_type="application/json")
    relay_once()
    sync_due_once()

    found = by_name(spans)
    request, published = found["POST api/v1/customers/"], found["publish"]
    assert answer.status_code == 201
    assert {format(span.get_span_context().trace_id, "032x") for span in spans.get_finished_spans()} == {TRACE}  # type: ignore[union-attr]
    assert request.parent is not None and format(request.parent.span_id, "016x") == TRACEPARENT.split("-")[2]
    assert request.attributes is not None and request.attributes["http.response.status_code"] == 201
    for span, parent, kind in [
        (published, request, SpanKind.PRODUCER),
        (found["deliver to kafka"], published, SpanKind.CONSUMER),
        (found["deliver to sync"], published, SpanKind.CONSUMER),
        (found["sync"], published, SpanKind.CONSUMER),
    ]:
        assert span.parent is not None and span.parent.span_id == id_of(parent), span.name
        assert span.kind is kind
    assert StoredEvent.objects.get().traceparent == f"00-{TRACE}-{id_of(published):016x}-01"


def test_it_links_a_batch_of_many_causes(spans: InMemorySpanExporter, collector: Collector) -> None:
    for aggregate in ("a", "b"):
        with step("work"), transaction.atomic():
            publish_many([new(aggregate), new(aggregate)])

    relay_once(collector)

    published = [span for span in spans.get_finished_spans() if span.name == "publish"]
    batch = by_name(spans)["deliver to collector"]
    assert batch.parent is None
    assert {link.context.span_id for link in batch.links} == {id_of(span) for span in published}
    assert len(batch.links) == 2
    assert batch.attributes is not None and batch.attributes["messaging.batch.message_count"] == 4


def test_it_marks_what_failed_and_quotes_nothing(spans: InMemorySpanExporter) -> None:
    with pytest.raises(ValueError, match="jane@"), step("work"):
        raise ValueError("jane@example.com is no address")

    (span,) = spans.get_finished_spans()
    assert span.status.status_code is StatusCode.ERROR
    assert span.attributes == {"error.type": "ValueError"}
    assert "jane@" not in span.to_json()


@pytest.mark.django_db
@pytest.mark.urls("tests.operations.probe_urls")
def test_it_marks_a_request_that_crashed(spans: InMemorySpanExporter) -> None:
    Client(raise_request_exception=False).get("/api/crash")

    (span,) = spans.get_finished_spans()
    assert (span.name, span.status.status_code) == ("GET api/crash", StatusCode.ERROR)


def start(*, before: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", START.format(before=before)],
        cwd=ROOT,
        env=os.environ | {"DJANGO_SETTINGS_MODULE": "zenskar.settings"} | environment,
        capture_output=True,
        text=True,
        timeout=100,
    )


# Libraries look for OpenTelemetry by themselves; ours are the SDK's tracing and the exporter.
@pytest.mark.parametrize("before", ["", MISSING])
def test_it_loads_nothing_where_spans_go_nowhere(before: str) -> None:
    ran = start(before=before)

    assert (ran.returncode, ran.stdout.splitlines()[0]) == (0, "loaded: 0"), ran.stderr


def test_it_says_what_is_missing() -> None:
    ran = start(before=MISSING, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1")

    assert ran.returncode == 1
    assert "operations.E010" in ran.stderr
    assert "requirements-otel.txt" in ran.stderr


def test_it_needs_nothing_where_it_is_switched_off() -> None:
    ran = start(before=MISSING, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1", OTEL_SDK_DISABLED="true")

    assert ran.returncode == 0, ran.stderr
