"""System checks of the outbox: what would lose or reorder events is refused at start."""

from __future__ import annotations

from typing import Any, Final

from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from dbresilience.typed_settings import setting
from outbox.conf import dead_policies, kafka_settings, outbox_settings, retention_settings
from outbox.lanes import LANES, lane_of
from outbox.policies import DeadPolicy, dead_policy
from outbox.subscribers import Subscriber

# Rows that exist were placed by these answers.
KNOWN_LANES: Final = {
    ("customer", "1"): 18,
    ("customer", "0192f3a1-7c00-7000-8000-000000000001"): 50,
    ("order", "Ω"): 22,
}
LEASE_MARGIN_SECONDS: Final = 5.0


@checks.register
def check_lanes(**_: Any) -> list[checks.CheckMessage]:
    """The function that places aggregates must be the one that placed those that exist."""
    if LANES == 64 and all(lane_of(*aggregate) == lane for aggregate, lane in KNOWN_LANES.items()):
        return []
    return [
        checks.Error("lane_of() answers differently.", hint="Its answers are stored; restore it.", id="outbox.E001")
    ]


@checks.register
def check_subscribers(**_: Any) -> list[checks.CheckMessage]:
    """OUTBOX_SUBSCRIBERS lists importable subscribers with different names, whose calls fit into a lease."""
    found: list[checks.CheckMessage] = []
    try:
        lease = outbox_settings().lease_seconds
        kafka_settings()
        retention_settings()
    except ImproperlyConfigured as exc:
        return [checks.Error(str(exc), id="outbox.E002")]
    names: set[str] = set()
    for path in setting("OUTBOX_SUBSCRIBERS", []):
        try:
            subscriber = import_string(path)()
        except ImportError as exc:
            found.append(checks.Error(f"OUTBOX_SUBSCRIBERS: {exc}", id="outbox.E003"))
            continue
        if not isinstance(subscriber, Subscriber) or subscriber.name in names:
            hint = "Each entry is a subclass of outbox.subscribers.Subscriber with a name of its own."
            found.append(checks.Error(f"OUTBOX_SUBSCRIBERS: {path} cannot be used.", hint=hint, id="outbox.E004"))
            continue
        names.add(subscriber.name)
        found += _policy_troubles(subscriber)
        if subscriber.call_seconds + LEASE_MARGIN_SECONDS > lease:
            hint = "A call must end before its lease does. Raise OUTBOX_LEASE_SECONDS or lower the call's time-out."
            found.append(
                checks.Error(
                    f"A call of {subscriber.name} may last {subscriber.call_seconds:g} s, with a lease of {lease:g} s.",
                    hint=hint,
                    id="outbox.E005",
                )
            )
    return found


def _policy_troubles(subscriber: Subscriber) -> list[checks.CheckMessage]:
    """A subscriber that handles each event once cannot be sent back, so none of its dead deliveries may be passed."""
    try:
        topics = {key.partition("/")[2] for key in dead_policies()} | (subscriber.topics or set()) | {""}
        skips = any(dead_policy(subscriber, topic) is DeadPolicy.SKIP for topic in topics)
    except (ImproperlyConfigured, ValueError) as exc:
        return [checks.Error(f"OUTBOX_DEAD_POLICY: {exc}", hint="Each value is block or skip.", id="outbox.E006")]
    if skips and not subscriber.may_repeat:
        hint = "A retry would give it the events after the dead one again. Use block, or set takes_repeats."
        return [checks.Error(f"Dead deliveries of {subscriber.name} cannot be skipped.", hint=hint, id="outbox.E007")]
    return []
