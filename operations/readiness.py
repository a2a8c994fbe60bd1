"""What the service needs to work, each with a check: the registry behind ``/readyz``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Component:
    """Something that the service needs.

    Attributes:
        name: as ``kafka``.
        check: returns the empty string when all is well, else a few words fit for strangers; what it raises counts as
            away. It brings its own time-outs, two seconds at most, and uses no connection that requests use.
        is_critical: whether nothing can be taken from clients without it.
    """

    name: str
    check: Callable[[], str]
    is_critical: bool


_components: Final[dict[str, Component]] = {}


def register(name: str, check: Callable[[], str], *, is_critical: bool = False) -> None:
    """Add a component; an app does so in ``ready()``. The same name again replaces it."""
    _components[name] = Component(name, check, is_critical)


def components() -> list[Component]:
    """All components, critical ones first."""
    return sorted(_components.values(), key=lambda component: (not component.is_critical, component.name))
