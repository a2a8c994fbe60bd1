from __future__ import annotations

import datetime as dt
import re

import pytest

from operations.database.charts import Series, line_chart

pytestmark = [pytest.mark.feature("B8")]

NOON = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)


def test_it_leaves_a_gap_where_nothing_was_measured() -> None:
    points = [(NOON + dt.timedelta(minutes=n), None if n == 5 else 2.0) for n in range(10)]

    chart = line_chart("T", [Series("a", points)], unit="ms", start=NOON, end=NOON + dt.timedelta(minutes=10))

    assert chart.svg.count("<polyline") == 2
    assert chart.legend == [("a", "2 ms", 1)]


@pytest.mark.parametrize("largest", [0, 1e-7, 0.3, 1, 7, 99, 12_345, 3e9])
def test_it_draws_every_value_below_the_highest_line(largest: float) -> None:
    points = [(NOON, 0.0), (NOON + dt.timedelta(minutes=1), largest)]

    chart = line_chart("T", [Series("a", points)], start=NOON, end=NOON + dt.timedelta(minutes=1))

    heights = [
        float(pair.split(",")[1]) for pair in re.findall(r'<polyline[^>]*points="([^"]+)"', chart.svg)[0].split()
    ]
    assert all(12 <= y <= 166 for y in heights)


def test_it_draws_nothing_of_nothing() -> None:
    chart = line_chart("T", [Series("a", [(NOON, None)])], start=NOON, end=NOON + dt.timedelta(minutes=1))

    assert chart.svg == ""
    assert chart.legend == [("a", "not measured", 1)]


def test_it_draws_one_line_through_samples_that_are_not_quite_even() -> None:
    minutes = [0, 6, 12, 17, 24, 30, 36]
    points = [(NOON + dt.timedelta(minutes=n), 1.0) for n in minutes]

    chart = line_chart("T", [Series("a", points)], start=NOON, end=NOON + dt.timedelta(minutes=40))

    assert chart.svg.count("<polyline") == 1


def test_it_breaks_the_line_where_no_samples_were_taken() -> None:
    points = [(NOON + dt.timedelta(minutes=n), 1.0) for n in (0, 1, 2, 3, 30, 31, 32)]

    chart = line_chart("T", [Series("a", points)], start=NOON, end=NOON + dt.timedelta(minutes=40))

    assert chart.svg.count("<polyline") == 2


def test_it_escapes_labels() -> None:
    chart = line_chart("<T>", [Series("<a>", [(NOON, 1.0)])], start=NOON, end=NOON + dt.timedelta(minutes=1))

    assert "<T>" not in chart.svg
    assert "<a>" not in chart.svg
