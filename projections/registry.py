"""The table of the projections that are in use."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from django.conf import settings
from django.core.signals import setting_changed
from django.dispatch import receiver
from django.utils.module_loading import import_string

from projections.errors import UnknownProjection
from projections.projection import Projection

SETTING: Final = "PROJECTIONS"


@lru_cache(maxsize=1)
def projections() -> tuple[Projection, ...]:
    """The projections in use, in the order of PROJECTIONS; several versions of one are several entries."""
    return tuple(import_string(path)() for path in getattr(settings, SETTING, ()))


def projection_names() -> list[str]:
    """The names in use, each once."""
    return list(dict.fromkeys(projection.name for projection in projections()))


def projection_named(name: str, version: int | None = None) -> Projection:
    """The projection of this name; of this version, or of the newest.

    Raises:
        UnknownProjection: none is listed.
    """
    found = [one for one in projections() if one.name == name and version in (None, one.version)]
    if not found:
        suffix = "" if version is None else f" of version {version}"
        known = ", ".join(projection_names()) or "none"
        raise UnknownProjection(f"PROJECTIONS lists no projection named {name!r}{suffix}, but these: {known}.")
    return max(found, key=lambda one: one.version)


@receiver(setting_changed)
def _forget(*, setting: str, **_: object) -> None:
    if setting == SETTING:
        projections.cache_clear()
