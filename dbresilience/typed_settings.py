"""Settings as what they should be: read in one place, in one way, and refused by name with the reason.

A setting is Django's of that name; where there is none it is the environment's variable, and an empty one is none.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Final

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

_TRUE: Final = frozenset({"1", "true", "yes", "on"})
_FALSE: Final = frozenset({"0", "false", "no", "off"})


def setting(name: str, default: Any) -> Any:
    """The setting as it was given, else ``default``."""
    found = getattr(settings, name, None)
    if found is None:
        found = os.environ.get(name, "").strip() or None
    return default if found is None else found


def number(name: str, default: float, low: float, high: float) -> float:
    """A number within its range.

    Raises:
        ImproperlyConfigured: it is none, or outside of it; the message names the setting.
    """
    return as_number(name, setting(name, default), low, high)


def whole(name: str, default: int, low: int, high: int) -> int:
    """A whole number within its range.

    Raises:
        ImproperlyConfigured: it is none, or outside of it; the message names the setting.
    """
    return as_whole(name, setting(name, default), low, high)


def truth(name: str, *, default: bool) -> bool:
    """True or false, or a word for it.

    Raises:
        ImproperlyConfigured: it is neither; the message names the setting.
    """
    raw = setting(name, default)
    word = str(raw).strip().lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise ImproperlyConfigured(f"{name} must be true or false, not {_shown(raw)}.")


def choice(name: str, choices: Sequence[str]) -> str:
    """One of the words; the first of them is the default.

    Raises:
        ImproperlyConfigured: it is none of them; the message names the setting.
    """
    value = str(setting(name, choices[0]))
    if value not in choices:
        raise ImproperlyConfigured(f"{name} must be one of {', '.join(choices)}, not {_shown(value)}.")
    return value


def pairs(name: str) -> dict[str, str]:
    """A dictionary, or ``name=value,name=value``; empty by default.

    Raises:
        ImproperlyConfigured: it does not look like that; the message names the setting, and none of its values, which
            may be passwords.
    """
    raw = setting(name, "")
    if isinstance(raw, dict):
        return {str(key): str(value) for key, value in raw.items()}
    parts = [part.partition("=") for part in str(raw).split(",") if part.strip()]
    if any(not separator for _, separator, _ in parts):
        raise ImproperlyConfigured(f"{name} must look like name=value,name=value.")
    return {key.strip(): value.strip() for key, _, value in parts}


def as_number(name: str, raw: object, low: float, high: float) -> float:
    """What was given for the setting ``name``, as a number.

    Raises:
        ImproperlyConfigured: it is none, or out of its range; the message names the setting.
    """
    try:
        # True counts as 1 with float(), and is a number to nobody who writes settings.
        value = float("" if isinstance(raw, bool) else str(raw))
    except ValueError as exc:
        raise ImproperlyConfigured(f"{name} must be a number, not {_shown(raw)}.") from exc
    # NaN fails this comparison too.
    if not low <= value <= high:
        raise ImproperlyConfigured(f"{name} must be between {low:.15g} and {high:.15g}, not {value:.15g}.")
    return value


def as_whole(name: str, raw: object, low: int, high: int) -> int:
    """The same, as a whole number.

    Raises:
        ImproperlyConfigured: it is none, or out of its range; the message names the setting.
    """
    value = as_number(name, raw, low, high)
    if value != int(value):
        raise ImproperlyConfigured(f"{name} must be a whole number, not {value:.15g}.")
    return int(value)


def _shown(raw: object) -> str:
    text = repr(raw)
    return text if len(text) <= 60 else f"{text[:60]}…"
