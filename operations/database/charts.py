"""Line charts as SVG, drawn by the server: no script, no inline style, nothing loaded from elsewhere."""

from __future__ import annotations

import datetime as dt
import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe

WIDTH: Final = 560
HEIGHT: Final = 190
LEFT, RIGHT, TOP, BOTTOM = 66, 10, 12, 24

Points = Sequence[tuple[dt.datetime, float | None]]


@dataclass(frozen=True, slots=True)
class Series:
    """One line.

    Attributes:
        label: as the legend shows it.
        points: instants and values; None is a gap, never a zero.
    """

    label: str
    points: Points


@dataclass(frozen=True, slots=True)
class Chart:
    """One chart, ready to be shown.

    Attributes:
        title: heading.
        svg: the drawing, or the empty string when there is nothing to draw.
        legend: label, latest value as text, and number of the line's colour.
        since: the first sample, when there is none of the whole time that was asked for.
    """

    title: str
    svg: SafeString
    legend: list[tuple[str, str, int]]
    since: dt.datetime | None = None


def line_chart(title: str, series: Sequence[Series], *, unit: str = "", start: dt.datetime, end: dt.datetime) -> Chart:
    """Draw lines over the time from ``start`` to ``end``; the axis begins at 0.

    Args:
        unit: written behind each value.
    """
    values = [value for line in series for _, value in line.points if value is not None]
    legend = [(line.label, _latest(line.points, unit), number) for number, line in enumerate(series, 1)]
    if not values:
        return Chart(title, mark_safe(""), legend)
    ticks = _ticks(max(values))
    scale = _Scale(start, end, ticks[-1])
    body = [
        *(_grid(scale, tick, unit) for tick in ticks),
        *(_time_label(scale, start + (end - start) * share) for share in (0.02, 0.25, 0.5, 0.75, 0.98)),
        *(_line(scale, line, number) for number, line in enumerate(series, 1)),
        _hints(scale, series, unit),
    ]
    summary = "; ".join(f"{label} {text}" for label, text, _ in legend)
    svg = format_html(
        '<svg class="chart-svg" viewBox="0 0 {} {}" role="img" aria-label="{}: {}">{}</svg>',
        WIDTH,
        HEIGHT,
        title,
        summary,
        format_html_join("", "{}", ((part,) for part in body)),
    )
    return Chart(title, svg, legend)


@dataclass(frozen=True, slots=True)
class _Scale:
    start: dt.datetime
    end: dt.datetime
    top: float

    def x(self, at: dt.datetime) -> float:
        share = (at - self.start) / (self.end - self.start)
        return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)

    def y(self, value: float) -> float:
        return round(HEIGHT - BOTTOM - value / self.top * (HEIGHT - TOP - BOTTOM), 1)


def _ticks(largest: float) -> list[float]:
    """Four or five round values from 0 to at least the largest."""
    if largest <= 0:
        return [0.0, 1.0]
    rough = largest / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    return [step * number for number in range(math.ceil(largest / step - 1e-9) + 1)]


def _grid(scale: _Scale, tick: float, unit: str) -> SafeString:
    y = scale.y(tick)
    return format_html(
        '<line class="chart-grid" x1="{}" x2="{}" y1="{}" y2="{}"/>'
        '<text class="chart-label" x="{}" y="{}" text-anchor="end">{}</text>',
        LEFT,
        WIDTH - RIGHT,
        y,
        y,
        LEFT - 6,
        y + 3.5,
        _text(tick, unit),
    )


def _time_label(scale: _Scale, at: dt.datetime) -> SafeString:
    form = "%H:%M" if scale.end - scale.start <= dt.timedelta(days=2) else "%d %b"
    x = scale.x(at)
    anchor = "start" if x < LEFT + 30 else "end" if x > WIDTH - RIGHT - 30 else "middle"
    return format_html(
        '<text class="chart-label" x="{}" y="{}" text-anchor="{}">{}</text>', x, HEIGHT - 7, anchor, at.strftime(form)
    )


def _line(scale: _Scale, line: Series, number: int) -> SafeString:
    """The line, its shade down to 0, and a dot where a point stands alone."""
    parts: list[SafeString] = []
    for run in _runs(line.points):
        places = [(scale.x(at), scale.y(value)) for at, value in run]
        if len(places) == 1:
            parts.append(format_html('<circle class="chart-dot c{}" cx="{}" cy="{}" r="2"/>', number, *places[0]))
            continue
        path = " ".join(f"{x},{y}" for x, y in places)
        floor = scale.y(0)
        if number == 1:
            shade = f"{places[0][0]},{floor} {path} {places[-1][0]},{floor}"
            parts.append(format_html('<polygon class="chart-shade c{}" points="{}"/>', number, shade))
        parts.append(format_html('<polyline class="chart-line c{}" points="{}"/>', number, path))
    return format_html_join("", "{}", ((part,) for part in parts))


def _runs(points: Points) -> list[list[tuple[dt.datetime, float]]]:
    """Stretches without a gap: a missing value is one, and so is a time without samples."""
    known = [(at, value) for at, value in points]
    distances = [after[0] - before[0] for before, after in itertools.pairwise(known)]
    usual = statistics.median_low(distances) if distances else dt.timedelta(0)
    runs: list[list[tuple[dt.datetime, float]]] = []
    previous: dt.datetime | None = None
    for at, value in known:
        if value is None:
            previous = None
            continue
        if previous is None or at - previous > 3 * usual:
            runs.append([])
        runs[-1].append((at, value))
        previous = at
    return runs


def _hints(scale: _Scale, series: Sequence[Series], unit: str) -> SafeString:
    """What the pointer shows: one strip for each instant, with all values."""
    instants = [at for at, _ in series[0].points]
    width = (WIDTH - LEFT - RIGHT) / max(1, len(instants))
    found = []
    for index, at in enumerate(instants):
        values = [(line.label, line.points[index][1]) for line in series if index < len(line.points)]
        text = ", ".join(f"{label} {_text(value, unit)}" for label, value in values if value is not None)
        if text:
            found.append((round(scale.x(at) - width / 2, 1), TOP, round(width, 1), HEIGHT - TOP - BOTTOM, at, text))
    return format_html_join(
        "",
        '<rect class="chart-hint" x="{}" y="{}" width="{}" height="{}"><title>{} UTC: {}</title></rect>',
        ((x, y, w, h, at.strftime("%d %b %H:%M"), text) for x, y, w, h, at, text in found),
    )


def _latest(points: Points, unit: str) -> str:
    known = [value for _, value in points if value is not None]
    return _text(known[-1], unit) if known else "not measured"


def _text(value: float, unit: str) -> str:
    if abs(value) >= 10_000:
        number = f"{value / 1000:.3g}k" if abs(value) < 1e6 else f"{value / 1e6:.3g}M"
    else:
        number = f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    return f"{number} {unit}".rstrip() if unit != "%" else f"{number}%"
