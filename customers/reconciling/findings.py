"""What a comparison found about one customer or record, and what may be done about it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from customers.integrations import Fields
from customers.models import Drift

Kind = Drift.Kind
Repair = Drift.Repair


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One difference.

    Attributes:
        kind: of the difference.
        remote_id: the record there; empty where there is none.
        customer_id: the customer here, if one is known.
        state_id: its sync state, or that of the record.
        fields: what differs, by field: ``field``, ``base``, ``ours``, ``theirs``.
        detail: what was found, in a sentence.
        repair: what mends it.
        destroys: the repair deletes something on either side.
        why_not: why a person must decide; empty when the repair is safe by rule.
        marks: token and pokes of the sync state while it was so; None where there is none to compare.
    """

    kind: Drift.Kind
    remote_id: str = ""
    customer_id: UUID | None = None
    state_id: int | None = None
    fields: Sequence[Mapping[str, Any]] = ()
    detail: str = ""
    repair: Drift.Repair = Repair.NOTHING
    destroys: bool = False
    why_not: str = ""
    marks: tuple[int, int] | None = None

    @property
    def safe(self) -> bool:
        """Whether the repair needs nobody's consent."""
        return self.repair != Repair.NOTHING and not self.why_not

    @property
    def subject(self) -> str:
        """What it is about."""
        return subject_of(self.remote_id, self.customer_id)

    @property
    def facts_hash(self) -> str:
        """The same as long as the same is found."""
        facts = [self.kind, self.subject, str(self.customer_id), self.repair, list(self.fields)]
        return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


def subject_of(remote_id: str, customer_id: UUID | str | None) -> str:
    """The name under which differences of one record, or of a customer without one, are known."""
    return f"remote:{remote_id}" if remote_id else f"customer:{customer_id}"


def fields_differing(
    base: Fields | None, ours: Fields, theirs: Fields, *, names: Sequence[str] | None = None
) -> list[dict[str, Any]]:
    """What is not the same everywhere, by field.

    Args:
        names: only these fields.
    """
    agreed = base or {}
    every = sorted(agreed.keys() | ours.keys() | theirs.keys()) if names is None else sorted(names)
    return [
        {"field": name, "base": agreed.get(name), "ours": ours.get(name), "theirs": theirs.get(name)}
        for name in every
        if not agreed.get(name) == ours.get(name) == theirs.get(name)
    ]
