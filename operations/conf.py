"""Settings of this app, with their defaults; each is a Django setting of the same name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from dbresilience.typed_settings import whole

_DAYS: Final = 36_500


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
        rate_limit=whole("API_RATE_LIMIT", 12_000, 0, 100_000_000),
        login_attempts=whole("LOGIN_ATTEMPTS", 10, 1, 1_000_000),
        login_window=whole("LOGIN_WINDOW", 900, 1, 31_536_000),
        trusted_proxies=whole("TRUSTED_PROXIES", 0, 0, 100),
    )


@dataclass(frozen=True, slots=True)
class RetentionSettings:
    """Days for which records are kept after they are over; 0 is for ever.

    Attributes:
        operations: operations and their items (``OPERATIONS_RETENTION_DAYS``, 180).
        alerts: alerts and notices (``ALERT_RETENTION_DAYS``, 90).
        audit: the audit trail (``AUDIT_RETENTION_DAYS``, 0).
    """

    operations: int
    alerts: int
    audit: int


def retention_settings() -> RetentionSettings:
    """The settings in force.

    Raises:
        ImproperlyConfigured: a value is out of its range; the message names the setting.
    """
    return RetentionSettings(
        operations=whole("OPERATIONS_RETENTION_DAYS", 180, 0, _DAYS),
        alerts=whole("ALERT_RETENTION_DAYS", 90, 0, _DAYS),
        audit=whole("AUDIT_RETENTION_DAYS", 0, 0, _DAYS),
    )
