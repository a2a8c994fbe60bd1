"""Spans for OpenTelemetry, where its SDK is installed and has somewhere to send them.

Only with an address in the environment is anything of OpenTelemetry imported, installed or not. All its variables
(``OTEL_…``) are read by the SDK itself.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from django.core import checks

from operations.tracing import LINKS, Attributes, Kind, Step, recorder_set, trace_valid

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span, SpanContext

ADDRESSES: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_PARTS: Final = ("opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.http")


def is_wanted() -> bool:
    """Whether the environment names somewhere to send spans to."""
    disabled = os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    return not disabled and any(os.environ.get(name, "").strip() for name in ADDRESSES)


@checks.register
def check_installed(**_: Any) -> list[checks.CheckMessage]:
    """What is asked for must be installed."""
    if not is_wanted() or all(_is_installed(part) for part in _PARTS):
        return []
    return [
        checks.Error(
            "OTEL_EXPORTER_OTLP_ENDPOINT is set, but OpenTelemetry is not installed.",
            hint="pip install --require-hashes -r requirements-otel.txt, or unset the variable.",
            id="operations.E010",
        )
    ]


def recorder_ensure() -> None:
    """Record from now on, if it is wanted and installed; spans go out by a thread that the SDK keeps over forks."""
    if not is_wanted() or not all(_is_installed(part) for part in _PARTS):
        return
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    name = os.environ.get("OTEL_SERVICE_NAME", "").strip() or "zenskar"
    provider = TracerProvider(resource=Resource.create({"service.name": name}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    recorder_set(OpenTelemetryRecorder(provider))


class OpenTelemetryRecorder:
    """Makes each step a span.

    Neither texts nor traces of exceptions go into spans: they may quote what was sent. The log has them, masked.

    Args:
        provider: of the SDK; whoever made it says where spans go.
    """

    def __init__(self, provider: TracerProvider) -> None:
        self._tracer = provider.get_tracer("zenskar")

    @contextmanager
    def step(
        self, name: str, *, parent: str, kind: Kind, attributes: Attributes, links: Iterable[str]
    ) -> Iterator[Step]:
        """As ``operations.tracing.step``."""
        from opentelemetry.context import Context
        from opentelemetry.trace import Link, NonRecordingSpan, SpanKind, set_span_in_context

        # Never the SDK's own idea of the current span: ours goes by the row or record that carried it.
        context = set_span_in_context(NonRecordingSpan(_context_of(parent)), Context()) if parent else Context()
        valid = (trace_valid(link) for link in islice(links, LINKS))
        with self._tracer.start_as_current_span(
            name,
            context=context,
            kind=SpanKind[kind.upper()],
            attributes=dict(attributes),
            links=[Link(_context_of(link)) for link in dict.fromkeys(valid) if link],
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            step = _Recorded(span)
            try:
                yield step
            except BaseException as exc:
                step.tell(failed=type(exc).__name__)
                raise


class _Recorded:
    def __init__(self, span: Span) -> None:
        self._span = span
        own = span.get_span_context()
        self.traceparent = f"00-{own.trace_id:032x}-{own.span_id:016x}-{int(own.trace_flags) & 1:02x}"

    def tell(self, *, name: str = "", failed: str = "", attributes: Attributes | None = None) -> None:
        """As ``Step.tell``."""
        from opentelemetry.trace import Status, StatusCode

        if name:
            self._span.update_name(name)
        if attributes:
            self._span.set_attributes(dict(attributes))
        if failed:
            self._span.set_attribute("error.type", failed)
            self._span.set_status(Status(StatusCode.ERROR))


def _context_of(traceparent: str) -> SpanContext:
    from opentelemetry.trace import SpanContext, TraceFlags

    _, trace, span, flags = traceparent.split("-")
    return SpanContext(int(trace, 16), int(span, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16)))


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False
