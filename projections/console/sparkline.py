"""A small line of the last hour, drawn by the server: no script, no inline style."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Final

from django.utils.html import format_html
from django.utils.safestring import SafeString

MINUTES: Final = 60
WIDTH: Final = 180
HEIGHT: Final = 32


def sparkline(by_minute: Mapping[dt.datetime, float], *, until: dt.datetime, label: str) -> SafeString:
    """One value a minute for the hour that ends with ``until``; a minute without a value is a zero."""
    end = until.replace(second=0, microsecond=0)
    values = [by_minute.get(end - dt.timedelta(minutes=MINUTES - 1 - n), 0.0) for n in range(MINUTES)]
    most = max(values) or 1.0
    points = " ".join(
        f"{n * WIDTH / (MINUTES - 1):.1f},{HEIGHT - 2 - value / most * (HEIGHT - 4):.1f}"
        for n, value in enumerate(values)
    )
    return format_html(
        '<svg class="spark" viewBox="0 0 {} {}" role="img" aria-label="{}, at most {} a minute">'
        '<polyline points="{}"></polyline></svg>',
        WIDTH,
        HEIGHT,
        label,
        f"{max(values):,.0f}",
        points,
    )
