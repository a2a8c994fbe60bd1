"""Trace context as the W3C defines it (https://www.w3.org/TR/trace-context/), and the steps of a trace.

A caller's ``traceparent`` goes on as it came: into the events that its request publishes, from there to Kafka and to
whatever work the event starts. Where none came, or one that is not valid, a trace begins here. Without a recorder
nothing else happens; with one (``operations.recording``) each step is a span, whose own context goes on instead.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Final, Literal, Protocol

HEADER: Final = "traceparent"
LINKS: Final = 100
"""Traces that the span of a batch is linked to, at most."""

Kind = Literal["server", "client", "producer", "consumer", "internal"]
Attributes = Mapping[str, str | int | float | bool]

# Versions after 00 may have more behind the flags; ff is no version.
_TRACEPARENT: Final = re.compile(r"(?!ff)([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?\Z", re.DOTALL)
_NONE: Final = frozenset("0")
_SAMPLED: Final = 1
_current: ContextVar[str] = ContextVar("traceparent", default="")


class Step(Protocol):
    """A step under way.

    Attributes:
        traceparent: what goes on to whatever this step sets in motion.
    """

    traceparent: str

    def tell(self, *, name: str = "", failed: str = "", attributes: Attributes | None = None) -> None:
        """Add what is known by now.

        Args:
            name: a better name of the step.
            failed: why it counts as failed, in a word.
            attributes: as at its start.
        """


class Recorder(Protocol):
    """Whoever keeps spans."""

    def step(
        self, name: str, *, parent: str, kind: Kind, attributes: Attributes, links: Iterable[str]
    ) -> AbstractContextManager[Step]:
        """Record one step; the arguments are those of ``step``."""


class _Unrecorded:
    def __init__(self, traceparent: str) -> None:
        self.traceparent = traceparent

    def tell(self, *, name: str = "", failed: str = "", attributes: Attributes | None = None) -> None:
        pass


_recorder: Recorder | None = None


def recorder_set(recorder: Recorder | None) -> None:
    """Have the steps of this process recorded from now on; None ends that."""
    global _recorder
    _recorder = recorder


def traceparent() -> str:
    """The trace context of the work under way, or the empty string outside of any."""
    return _current.get()


def trace_id(text: str) -> str:
    """The trace's id in a valid ``traceparent``, or the empty string."""
    return text[3:35]


def trace_valid(text: str) -> str:
    """``text`` as a ``traceparent`` of version 00, or the empty string when it is none."""
    found = _TRACEPARENT.match(text)
    if found is None:
        return ""
    version, trace, parent, flags, more = found.groups()
    if _NONE.issuperset(trace) or _NONE.issuperset(parent) or (version == "00" and more is not None):
        return ""
    return f"00-{trace}-{parent}-{int(flags, 16) & _SAMPLED:02x}"


def trace_new() -> str:
    """The context of a trace that begins here; not sampled, since nobody has recorded anything of it."""
    return f"00-{_some_hex(16)}-{_some_hex(8)}-00"


@contextmanager
def step(
    name: str,
    *,
    parent: str = "",
    kind: Kind = "internal",
    attributes: Attributes | None = None,
    links: Iterable[str] = (),
) -> Iterator[Step]:
    """A step of a trace, and the context of everything in the block.

    Args:
        name: what is done, without ids.
        parent: ``traceparent`` of what set it in motion; empty or not valid: the work under way, else a new trace.
        kind: as OpenTelemetry has it.
        attributes: what is known at its start.
        links: ``traceparent`` of each of many causes, where there is no single one; the first hundred count.
    """
    parent = trace_valid(parent) or _current.get()
    if _recorder is None:
        with _bound(parent or trace_new()) as bound:
            yield _Unrecorded(bound)
        return
    with (
        _recorder.step(name, parent=parent, kind=kind, attributes=attributes or {}, links=links) as under_way,
        _bound(under_way.traceparent),
    ):
        yield under_way


@contextmanager
def _bound(value: str) -> Iterator[str]:
    token = _current.set(value)
    try:
        yield value
    finally:
        _current.reset(token)


def _some_hex(size: int) -> str:
    while _NONE.issuperset(found := secrets.token_hex(size)):
        pass
    return found
