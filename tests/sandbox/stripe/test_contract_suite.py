"""The contract suite says of each of its assertions on what it rests, and is large enough to be worth something."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import pytest

pytestmark = pytest.mark.feature("G6")

LEAST = 60


def test_every_contract_test_is_documented_or_observed_and_there_are_enough() -> None:
    bases: Counter[str] = Counter()
    unmarked, assertions = [], 0
    for path in sorted(Path(__file__).parent.glob("test_contract_*.py")):
        if path.name == Path(__file__).name:
            continue
        for test in ast.walk(ast.parse(path.read_text())):
            if not isinstance(test, ast.FunctionDef) or not test.name.startswith("test_"):
                continue
            marks = [
                one.func.id
                for one in test.decorator_list
                if isinstance(one, ast.Call) and isinstance(one.func, ast.Name)
            ]
            basis = {"documented", "observed"} & set(marks)
            if len(basis) != 1:
                unmarked.append(f"{path.name}::{test.name}")
            bases.update(basis)
            assertions += sum(isinstance(one, ast.Assert) for one in ast.walk(test))

    assert unmarked == []
    assert bases["documented"] > bases["observed"] > 0
    assert sum(bases.values()) >= LEAST
    assert assertions >= LEAST
