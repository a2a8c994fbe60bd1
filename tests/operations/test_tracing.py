from __future__ import annotations

import pytest

from operations.correlation import correlation_id, correlations_named, work_bound
from operations.tracing import step, trace_id, trace_new, trace_valid, traceparent

pytestmark = pytest.mark.feature("A13")

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
VALID = f"00-{TRACE}-{SPAN}-01"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (VALID, VALID),
        (f"00-{TRACE}-{SPAN}-00", f"00-{TRACE}-{SPAN}-00"),
        # Flags that this version does not know are not passed on.
        (f"00-{TRACE}-{SPAN}-ff", VALID),
        # A later version goes on as the one that we know.
        (f"cc-{TRACE}-{SPAN}-01", VALID),
        (f"cc-{TRACE}-{SPAN}-01-what-the-future-brings", VALID),
    ],
)
def test_it_takes_a_valid_context(text: str, expected: str) -> None:
    assert trace_valid(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-",
        "00",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}-01-",
        f"cc-{TRACE}-{SPAN}-01.more",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE[:-1]}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}0-01",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-0g",
        f" {VALID}",
        f"{VALID}\n",
        f"0-{TRACE}-{SPAN}-01",
        f"{VALID},{VALID}",
    ],
)
def test_it_refuses_what_is_none(text: str) -> None:
    assert trace_valid(text) == ""


def test_it_begins_a_trace_that_is_valid_and_new() -> None:
    first, second = trace_new(), trace_new()

    assert trace_valid(first) == first
    assert trace_id(first) != trace_id(second)


def test_it_passes_the_callers_context_on_as_it_came() -> None:
    with work_bound("work", correlation="order-1", traceparent=VALID), step("inner") as inner:
        assert (correlation_id(), traceparent(), inner.traceparent) == ("order-1", VALID, VALID)

    assert (correlation_id(), traceparent()) == ("", "")


def test_it_begins_a_trace_where_none_came_or_a_wrong_one() -> None:
    with work_bound("work", traceparent="00-nonsense") as work:
        assert trace_valid(work.traceparent) == work.traceparent == traceparent()


def test_it_names_each_id_once_and_not_too_many() -> None:
    ids = ["a", "", "a", "b", *[f"c{number}" for number in range(30)]]

    named = correlations_named(ids)

    assert named[:3] == ["a", "b", "c0"]
    assert len(named) == 20
