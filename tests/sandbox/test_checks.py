"""The project's own tools: requirements that are pinned, and the feature table."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.features import feature_report, feature_rows, proofs_by_row
from tests.lint import ROOT, requirement_troubles

pytestmark = pytest.mark.feature("F1")


def test_every_requirement_is_pinned_as_asked_for() -> None:
    assert requirement_troubles(ROOT) == []


def test_it_sees_a_requirement_that_was_not_compiled(tmp_path: Path) -> None:
    (tmp_path / "requirements.in").write_text("# why\nDjango>=5.2,<5.3\nredis\n-c other.txt\n")
    (tmp_path / "requirements.txt").write_text("django==5.1.9 \\\n    --hash=sha256:00\n")

    troubles = requirement_troubles(tmp_path)

    assert troubles == [
        "requirements.in: Django>=5.2,<5.3 is 5.1.9 in requirements.txt",
        "requirements.in: redis is missing in requirements.txt",
    ]


@pytest.mark.parametrize("package", ["django", "djangorestframework", "psycopg", "celery", "redis", "stripe"])
def test_the_product_stands_on_the_libraries_that_it_names(package: str) -> None:
    assert f"\n{package}==" in "\n" + (ROOT / "requirements.txt").read_text()


def test_it_reads_the_whole_feature_table() -> None:
    rows = feature_rows()

    assert len(rows) == 88
    assert next(iter(rows)) == "A1"
    assert rows["H7"].startswith("One command")


def test_it_lists_each_test_once_and_the_rows_without_one() -> None:
    items: Any = [_item("tests/a.py::test_x[1]", "A1"), _item("tests/a.py::test_x[2]", "A1", "B1")]

    lines = feature_report({"A1": "first", "B1": "second", "C1": "third"}, proofs_by_row(items))

    assert lines == [
        "A1     1  first",
        "            tests/a.py::test_x",
        "B1     1  second",
        "            tests/a.py::test_x",
        "C1     0  third",
        "\n2 of 3 rows have tests. None yet: C1",
    ]


def _item(nodeid: str, *rows: str) -> SimpleNamespace:
    return SimpleNamespace(nodeid=nodeid, iter_markers=lambda _name: [SimpleNamespace(args=rows)])
