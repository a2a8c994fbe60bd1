"""Settings of the comparison of both sides, with their defaults; each is a Django setting or environment variable."""

from __future__ import annotations

from dataclasses import dataclass

from dbresilience.typed_settings import number, whole


@dataclass(frozen=True, slots=True)
class ReconcileSettings:
    """What a comparison may do by itself.

    Attributes:
        min_age: seconds; nothing younger is deleted by rule (``RECONCILE_MIN_AGE``).
        deletes_most: deletions of one comparison; when there would be more, all become proposals
            (``RECONCILE_DELETES_MOST``).
        grace: seconds; what was created later is left to its webhook (``RECONCILE_GRACE``).
        retention: days that differences are kept after they ended (``DRIFT_RETENTION``).
    """

    min_age: float
    deletes_most: int
    grace: float
    retention: int


def reconcile_settings() -> ReconcileSettings:
    """The settings in force.

    Raises:
        ImproperlyConfigured: a value is no number or out of its range; the message names the setting.
    """
    return ReconcileSettings(
        min_age=number("RECONCILE_MIN_AGE", 86_400, 0, 31_536_000),
        deletes_most=whole("RECONCILE_DELETES_MOST", 10, 0, 100_000),
        grace=number("RECONCILE_GRACE", 60, 0, 86_400),
        retention=whole("DRIFT_RETENTION", 90, 1, 36_500),
    )
