"""Settings of this app, with their defaults; each is a Django setting of the same name."""

from __future__ import annotations

from dataclasses import dataclass

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured


@dataclass(frozen=True, slots=True)
class AccessSettings:
    """How much a caller may do, and how it is told from others.

    Attributes:
        rate_limit: requests a minute for one API key or one member of staff (``API_RATE_LIMIT``); 0 is unlimited.
        login_attempts: attempts that one address has on one name in a window (``LOGIN_ATTEMPTS``).
        login_window: seconds that such a window lasts (``LOGIN_WINDOW``).
        trusted_proxies: proxies of ours in front of the service, each of which appends to ``X-Forwarded-For``
            (``TRUSTED_PROXIES``); with 0 that header is not believed.
    """

    rate_limit: int
    login_attempts: int
    login_window: int
    trusted_proxies: int


def access_settings() -> AccessSettings:
    """The settings in force.

    Raises:
        ImproperlyConfigured: a value is out of its range; the message names the setting.
    """
    return AccessSettings(
        rate_limit=_whole("API_RATE_LIMIT", 12_000, 0),
        login_attempts=_whole("LOGIN_ATTEMPTS", 10, 1),
        login_window=_whole("LOGIN_WINDOW", 900, 1),
        trusted_proxies=_whole("TRUSTED_PROXIES", 0, 0),
    )


def _whole(name: str, default: int, low: int) -> int:
    value = getattr(settings, name, default)
    if not isinstance(value, int) or value < low:
        raise ImproperlyConfigured(f"{name} must be a whole number from {low}, not {value!r}.")
    return value
