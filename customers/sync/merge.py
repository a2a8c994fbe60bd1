"""The three-way merge of one customer: pure, so that it can be tested on every combination.

Base is what both sides agreed on last. A side that still equals it did not change; so the other side's value is the
newer one, whatever the clocks say.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from customers.integrations import Fields, Value

Owner = Literal["local", "remote", "person"]


@dataclass(frozen=True, slots=True)
class FieldConflict:
    """A field that both sides changed to different values."""

    field: str
    base: Value | None
    ours: Value | None
    theirs: Value | None


@dataclass(frozen=True, slots=True)
class Merge:
    """What must happen so that both sides agree.

    Attributes:
        pushed: fields to send and the value they get remotely; None unsets.
        pulled: fields to change here; None unsets.
        agreed: fields that are the same on both sides but not yet in the base.
        conflicts: fields for a person.
    """

    pushed: dict[str, Value | None] = field(default_factory=dict)
    pulled: dict[str, Value | None] = field(default_factory=dict)
    agreed: dict[str, Value | None] = field(default_factory=dict)
    conflicts: list[FieldConflict] = field(default_factory=list)


def merge(*, base: Fields | None, ours: Fields, theirs: Fields, owner: Callable[[str], Owner]) -> Merge:
    """Merge field by field.

    Args:
        base: what was agreed last; None or a missing field counts as empty, so that of two sides that never agreed
            the one that has a value gives it to the other.
        ours: the customer here.
        theirs: the record there.
        owner: who wins a field that both changed differently.
    """
    result = Merge()
    base = base or {}
    for name in sorted(base.keys() | ours.keys() | theirs.keys()):
        agreed, our, their = base.get(name), ours.get(name), theirs.get(name)
        if our == their:
            if our != agreed:
                result.agreed[name] = our
        elif their == agreed:
            result.pushed[name] = our
        elif our == agreed:
            result.pulled[name] = their
        else:
            match owner(name):
                case "local":
                    result.pushed[name] = our
                case "remote":
                    result.pulled[name] = their
                case _:
                    result.conflicts.append(FieldConflict(name, agreed, our, their))
    return result
