"""Durations as people type them: ``90d``, ``12h``, ``30m``, ``45s``."""

from __future__ import annotations

import argparse
import datetime as dt
import re
from typing import Final

_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def duration(text: str) -> dt.timedelta:
    """Parse a duration; an ``argparse`` type.

    Raises:
        argparse.ArgumentTypeError: not a number and one of s, m, h, d.
    """
    match = re.fullmatch(r"(\d{1,6})([smhd])", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no duration; write 45s, 30m, 12h or 90d")
    return dt.timedelta(**{_UNITS[match[2]]: int(match[1])})
