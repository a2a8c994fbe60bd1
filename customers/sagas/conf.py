"""Settings of protected changes; each is a Django setting or an environment variable."""

from __future__ import annotations

from dataclasses import dataclass

from dbresilience.typed_settings import number, whole


@dataclass(frozen=True, slots=True)
class SagaSettings:
    """How long protected changes may take, and how many at once.

    Attributes:
        limit: seconds after which whoever asked is told where to look instead (``PROTECTED_SECONDS``, 10).
        give_up: seconds after which one that has not succeeded is undone (``PROTECTED_GIVE_UP_SECONDS``, 600).
        places: that one process may carry out at once on behalf of callers (``PROTECTED_AT_ONCE``, 8).
        strikes: failures, other than outages, after which a person must look (``PROTECTED_ATTEMPTS``, 10).
        retention: days for which finished ones are kept (``PROTECTED_RETENTION``, 90); 0 is for ever.
        stuck_retention: days for which a create that is stuck keeps what it was asked to create
            (``PROTECTED_STUCK_RETENTION``, 90); 0 is until it has ended.
    """

    limit: float
    give_up: float
    places: int
    strikes: int
    retention: int
    stuck_retention: int


def saga_settings() -> SagaSettings:
    """The settings in force.

    Raises:
        ImproperlyConfigured: a value is out of its range; the message names the setting.
    """
    return SagaSettings(
        limit=number("PROTECTED_SECONDS", 10.0, 0.1, 300.0),
        give_up=number("PROTECTED_GIVE_UP_SECONDS", 600.0, 1.0, 86_400.0),
        places=whole("PROTECTED_AT_ONCE", 8, 1, 1000),
        strikes=whole("PROTECTED_ATTEMPTS", 10, 1, 1000),
        retention=whole("PROTECTED_RETENTION", 90, 0, 36_500),
        stuck_retention=whole("PROTECTED_STUCK_RETENTION", 90, 0, 36_500),
    )
