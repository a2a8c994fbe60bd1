"""Every outermost transaction of the product goes through the one verb, or says here why it does not."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Final

import pytest

pytestmark = pytest.mark.feature("A3", "A4", "B7")

ROOT: Final = Path(__file__).resolve().parents[2]
PACKAGES: Final = ("zenskar", "customers", "projections", "outbox", "operations")

ARGUED: Final = {
    "outbox/sequencing.py": "its first statement must run before the transaction has an id, and the verb gives it one"
    " at once; whatever fails is forgotten, and done again by the next pass",
    "outbox/cutting.py": "its snapshot is taken before it writes anything, and taken anew as often as it must be",
    "outbox/settling.py": "what was delivered outside of it cannot be delivered again by repeating it; the pass forgets"
    " what it knew and reads anew",
    "outbox/delivering.py": "a savepoint inside the one that settles",
    "outbox/leases.py": "part of a pass, which comes again in a moment",
    "outbox/partitions.py": "part of a pass, which comes again in a moment; a table that is locked is left for later",
    "outbox/consuming/attempting.py": "a savepoint inside the one that settles",
    "outbox/consuming/inbox.py": "a savepoint inside the one that settles",
    "projections/applying.py": "a savepoint inside the one that settles",
    "projections/builds.py": "part of a pass, which comes again in a moment",
    "projections/recomputing.py": "a savepoint inside the caller's",
    "projections/resolving.py": "a savepoint around a function of the projection's",
    "projections/sampling.py": "part of a pass, which comes again in a moment",
    "projections/tables.py": "a savepoint",
    "customers/readmodels/views.py": "reads alone, and sets what holds for that one query",
    "operations/overview.py": "reads alone; a tile that fails is shown as such",
}
"""Where ``atomic`` is used, and why."""


def uses_of_atomic() -> set[str]:
    found = set()
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            names = {
                node.attr if isinstance(node, ast.Attribute) else node.id
                for node in ast.walk(ast.parse(path.read_text()))
                if isinstance(node, ast.Attribute | ast.Name)
            }
            if "atomic" in names and "migrations" not in path.parts:
                found.add(str(path.relative_to(ROOT)))
    return found


def test_it_repeats_every_transaction_that_is_not_argued_for() -> None:
    assert uses_of_atomic() - ARGUED.keys() == set()


def test_it_argues_for_none_that_is_gone() -> None:
    assert ARGUED.keys() - uses_of_atomic() == set()
