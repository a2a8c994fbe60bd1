"""Sources of alerts: functions that say what is wrong now, and the registry of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from operations.models import AlertLevel


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """Something that is wrong now.

    Attributes:
        key: what, stable as long as it lasts; unique within its source, 120 characters at most.
        level: how bad.
        title: a few words.
        message: a sentence; nothing secret, nothing about a person.
    """

    key: str
    level: AlertLevel
    title: str
    message: str = ""


Conditions = Callable[[], Iterable[Condition]]

_sources: Final[dict[str, Conditions]] = {}


def register(name: str, conditions: Conditions) -> None:
    """Add a source; the same name again replaces it.

    Args:
        name: as ``database``.
        conditions: returns what is wrong now; it is called about once a minute, by beat, outside of any transaction.
            What it no longer returns has ended. What it raises leaves its alerts as they were.
    """
    _sources[name] = conditions


def unregister(name: str) -> None:
    """Take a source away."""
    _sources.pop(name, None)


def sources() -> dict[str, Conditions]:
    """All sources by name."""
    return dict(_sources)
