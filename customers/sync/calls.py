"""One call to an integration through the gate, and what the gate learns from how it ended."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, TypeVar

from customers.integrations import (
    ConfigurationError,
    IntegrationError,
    PermissionMissing,
    RateLimited,
    Unreachable,
)
from customers.models import Priority
from customers.sync.quoting import quoting_nothing
from customers.sync.ratelimit import Gate

T = TypeVar("T")

_CONFIGURATION_PAUSE: Final = 30.0
# Where the other side does not say how long. Once, a call arrived too soon after others; again, somebody else uses the
# account too, and its rate is not ours alone.
_RATE_LIMIT_PAUSE: Final = 0.1
_RATE_LIMIT_PAUSE_AGAIN: Final = 0.5


def gated(gate: Gate, function: Callable[[], T], *, priority: Priority, patience: float) -> T:
    """Take a token, make the call, and close the gate if the answer says so.

    Args:
        function: the call, made outside of any transaction.
        priority: class of the work.
        patience: seconds to wait for a token at most.

    Raises:
        IntegrationError: as the adapter or the gate raised it, without e-mail addresses in its message.
    """
    turn = gate.take(priority, patience=patience)
    begun, seconds = time.monotonic(), None
    try:
        with quoting_nothing():
            result = function()
        seconds = time.monotonic() - begun
    except Unreachable as exc:
        gate.silent(exc.message)
        raise
    except RateLimited as exc:
        seconds = exc.retry_after or _RATE_LIMIT_PAUSE
        gate.close(seconds, exc.message, again=exc.retry_after or _RATE_LIMIT_PAUSE_AGAIN)
        raise
    except PermissionMissing:
        gate.answered()
        raise
    except ConfigurationError as exc:
        # No other call would succeed either: rows wait for the setting, not for their turn of failing.
        gate.close(_CONFIGURATION_PAUSE, exc.message)
        raise
    except IntegrationError:
        gate.answered()
        raise
    finally:
        gate.ended(turn, seconds)
    gate.answered()
    return result
