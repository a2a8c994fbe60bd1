"""Settings of idempotency keys."""

from __future__ import annotations

from dataclasses import dataclass

from dbresilience.typed_settings import number


@dataclass(frozen=True, slots=True)
class IdempotencySettings:
    """How long keys last.

    Attributes:
        life: seconds for which an answer is kept (``IDEMPOTENCY_SECONDS``, 86400).
        lease: seconds after which a key whose request died before its work began may be taken over
            (``IDEMPOTENCY_LEASE``, 5). A request whose transaction is open is never taken over.
    """

    life: float
    lease: float


def idempotency_settings() -> IdempotencySettings:
    """The settings in force.

    Raises:
        ImproperlyConfigured: a value is out of its range; the message names the setting.
    """
    return IdempotencySettings(
        life=number("IDEMPOTENCY_SECONDS", 86_400.0, 60.0, 31_536_000.0),
        lease=number("IDEMPOTENCY_LEASE", 5.0, 0.1, 600.0),
    )
