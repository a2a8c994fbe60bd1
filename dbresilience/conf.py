"""Settings of this app, with their defaults; each is a Django setting or an environment variable of the same name."""

from __future__ import annotations

import os
from dataclasses import dataclass

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured


@dataclass(frozen=True, slots=True)
class RetrySettings:
    """How often and after which waits a transaction is run again.

    Attributes:
        max_retries: runs after the first one when the connection was lost before the commit (``DB_MAX_RETRIES``).
        deadlock_retries: runs after the first one after a deadlock or a serialization failure
            (``DB_DEADLOCK_RETRY_COUNT``); larger, since these are expected and short.
        base_delay: seconds; the upper bound of the first wait (``DB_RETRY_BASE_DELAY``).
        max_delay: seconds; no wait is longer (``DB_RETRY_MAX_DELAY``, at most 30).
    """

    max_retries: int
    deadlock_retries: int
    base_delay: float
    max_delay: float


def retry_settings() -> RetrySettings:
    """The settings in force.

    Raises:
        ImproperlyConfigured: a value is no number or out of its range; the message names the setting.
    """
    return RetrySettings(
        max_retries=int(_number("DB_MAX_RETRIES", 3, 0, 100)),
        deadlock_retries=int(_number("DB_DEADLOCK_RETRY_COUNT", 5, 0, 100)),
        base_delay=_number("DB_RETRY_BASE_DELAY", 0.1, 0.0, 30.0),
        max_delay=_number("DB_RETRY_MAX_DELAY", 5.0, 0.0, 30.0),
    )


def _number(name: str, default: float, low: float, high: float) -> float:
    raw = getattr(settings, name, os.environ.get(name, default))
    try:
        value = float(raw)
    except (TypeError, ValueError) as exc:
        raise ImproperlyConfigured(f"{name} must be a number, not {raw!r}.") from exc
    if not low <= value <= high:
        raise ImproperlyConfigured(f"{name} must be between {low:g} and {high:g}, not {value:g}.")
    return value
