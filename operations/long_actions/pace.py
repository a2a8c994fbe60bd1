"""How fast an operation may go, and when it must stop: from its row alone, so that every holder decides alike."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Final

from operations.models import Operation

JUDGED_FROM: Final = 20
"""Recent outcomes below which a share of failures says nothing."""

AIM_SECONDS: Final = 0.25
SLOW_SECONDS: Final = 0.5
LONGEST_REST: Final = 5.0


@dataclass(frozen=True, slots=True)
class Allowance:
    """What may be begun now.

    Attributes:
        limit: items of the next batch; 0 is none yet.
        at: the database's clock when that was decided.
        tokens: items that the rate has earned; None without a rate.
        rest: seconds until another look is worth it, when the limit is 0.
    """

    limit: int
    at: dt.datetime
    tokens: float | None = None
    rest: float = 0.0


def allowance_of(operation: Operation, now: dt.datetime, *, largest: int) -> Allowance:
    """The next batch's size: by how long the last one took, holders that died of late, the canary and the rate.

    Args:
        now: the database's clock.
        largest: the kind's largest batch.
    """
    size = max(1, min(operation.batch, largest))
    if operation.strikes:
        size = 1 if operation.strikes > 2 else max(1, size >> (2 * operation.strikes))
    if operation.canary and not operation.canary_passed:
        size = min(size, operation.canary - operation.begun)
    rate = rate_now(operation, now)
    if rate is None:
        return Allowance(size, now)
    earned = max(0.0, (now - operation.refilled_at).total_seconds()) * rate
    # A second's worth is saved up at most, so a rest is not followed by a rush.
    tokens = min(max(1.0, rate), operation.tokens + earned)
    if tokens < 1.0:
        return Allowance(0, now, tokens, min(LONGEST_REST, max(0.02, (1.0 - tokens) / rate)))
    return Allowance(min(size, int(tokens)), now, tokens)


def rate_now(operation: Operation, now: dt.datetime) -> float | None:
    """Items a second at this moment of the ramp; None is as fast as it goes."""
    if operation.rate is None or not operation.ramp_seconds or operation.ramp_from is None:
        return operation.rate
    share = (now - operation.ramp_from).total_seconds() / operation.ramp_seconds
    return operation.rate * min(1.0, max(0.1, share))


def batch_after(wanted: int, size: int, seconds: float, largest: int) -> int | None:
    """Items of the next batch after one of ``size`` that took so long; None leaves it as it was.

    Whoever pauses waits for one batch at most, so a batch is kept below half a second.
    """
    if seconds > SLOW_SECONDS:
        return max(1, size // 2)
    return min(largest, size * 2) if seconds < AIM_SECONDS and size >= wanted else None


def canary_ended(operation: Operation) -> bool:
    """Whether each item of its canary has an outcome, good or bad."""
    begun = operation.collected and operation.begun >= min(operation.canary, operation.items)
    return begun and not operation.in_flight


def stop_reason(operation: Operation) -> str:
    """Why the operation must stop by itself now; empty when it need not."""
    ended: float
    if operation.canary and not operation.canary_passed:
        if not canary_ended(operation):
            return ""
        ended, failed, of = operation.succeeded + operation.failed, float(operation.failed), "of the canary"
    elif operation.recent_ended >= JUDGED_FROM:
        ended, failed, of = operation.recent_ended, operation.recent_failed, "of the latest"
    else:
        return ""
    share = failed / ended if ended else 0.0
    if share <= operation.stop_error_rate:
        return ""
    return f"{share:.0%} {of} failed; it stops above {operation.stop_error_rate:.0%}."
