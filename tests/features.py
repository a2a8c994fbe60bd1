"""A pytest plugin behind ``make features``: each row of docs/features.md with the tests that carry its mark."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import pytest

TABLE = Path(__file__).resolve().parent.parent / "docs" / "features.md"
ROW = re.compile(r"^\| ([A-Z]\d+) \| (.+?) \|$", re.MULTILINE)

_report: list[str] = []
_unknown: list[str] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--features", action="store_true", help="print the feature table with the tests of each row")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("features"):
        return
    proofs = proofs_by_row(items)
    rows = feature_rows()
    _report.extend(feature_report(rows, proofs))
    _unknown.extend(f"{test} names {row}, which is no row" for row in proofs if row not in rows for test in proofs[row])
    items.clear()


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if session.config.getoption("features"):
        session.exitstatus = 1 if _unknown else 0


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for line in _report:
        terminalreporter.write_line(line)
    for line in _unknown:
        terminalreporter.write_line(line, red=True)


def feature_rows(table: Path = TABLE) -> dict[str, str]:
    """Row → what it promises."""
    return dict(ROW.findall(table.read_text()))


def proofs_by_row(items: Iterable[pytest.Item]) -> dict[str, list[str]]:
    """Row → the tests that carry it, as file::function, each once however often it is parametrized."""
    proofs: dict[str, list[str]] = defaultdict(list)
    for item in items:
        test = item.nodeid.partition("[")[0]
        for mark in item.iter_markers("feature"):
            for row in mark.args:
                if test not in proofs[row]:
                    proofs[row].append(test)
    return proofs


def feature_report(rows: dict[str, str], proofs: dict[str, list[str]]) -> list[str]:
    """The table as lines, and the rows without a test at its end."""
    lines: list[str] = []
    for row, promise in rows.items():
        tests = proofs.get(row, [])
        lines.append(f"{row:<4} {len(tests):>3}  {promise}")
        lines += [f"            {test}" for test in tests]
    bare = [row for row in rows if not proofs.get(row)]
    lines.append(f"\n{len(rows) - len(bare)} of {len(rows)} rows have tests. None yet: {', '.join(bare) or '-'}")
    return lines
