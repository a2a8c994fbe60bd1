"""What a dead delivery does to its aggregate: holds it back, or lets it go on."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from functools import lru_cache
from typing import Final

from outbox.conf import dead_policies
from outbox.subscribers import Subscriber


class DeadPolicy(StrEnum):
    """What happens to an aggregate whose event could not be delivered in all its attempts.

    block: its later events wait for a person. Nothing is out of order, and nothing of that aggregate arrives.
    skip: its later events go on; the dead one stays on record. A retry of it sends the aggregate back to it, so that
        what came after it arrives again, in order, and never the old state last.
    """

    BLOCK = "block"
    SKIP = "skip"


DEFAULT: Final = DeadPolicy.BLOCK


def dead_policy(subscriber: Subscriber, topic: str) -> DeadPolicy:
    """The policy in force for one topic of a subscriber.

    OUTBOX_DEAD_POLICY decides, by ``subscriber/topic``, else ``subscriber``, else ``*/topic``, else ``*``; else the
    subscriber itself.

    Raises:
        ValueError: the setting names no policy.
    """
    configured = dead_policies()
    for key in (f"{subscriber.name}/{topic}", subscriber.name, f"*/{topic}", "*"):
        if key in configured:
            return DeadPolicy(configured[key])
    return DeadPolicy(subscriber.dead_policy)


def goes_on(subscriber: Subscriber) -> Callable[[str], bool]:
    """By topic: whether an aggregate of this subscriber goes on after a dead delivery; settings are read once each."""

    @lru_cache(maxsize=1_000)
    def answer(topic: str) -> bool:
        return dead_policy(subscriber, topic) is DeadPolicy.SKIP

    return answer
