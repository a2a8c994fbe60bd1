"""Measures how long the console's lists take on tables of many rows.

    python -m benchmarks.console [--rows 1000000] [--rounds 5] [--json FILE]

Every table is filled by SQL. Then each list is requested, through all of Django, as a person with all rights would: its
first, tenth and last page, each choice of its filters, each kind of search, and a record.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from benchmarks.outbox.servers import servers

GOAL_MS: Final = 300


def measured(*, rows: int, rounds: int) -> list[dict[str, Any]]:
    """Figures of every page, after one round that only warms up."""
    with servers():
        from django.contrib.auth.models import User
        from django.test import Client

        from benchmarks.console.fill import fill
        from benchmarks.console.pages import measure, pages

        fill(rows)
        client = Client()
        client.force_login(User.objects.create_superuser("bench"))
        every = list(pages(client))
        for nth in range(rounds + 1):
            for page in every:
                measure(client, page)
                if nth == 0:
                    page.seconds, page.processor_seconds, page.slowest = [], [], (0.0, "")
    return [
        {
            "list": page.list,
            "page": page.what,
            "median_ms": round(statistics.median(page.seconds) * 1000, 1),
            "max_ms": round(max(page.seconds) * 1000, 1),
            "processor_ms": round(statistics.median(page.processor_seconds) * 1000, 1),
            "slowest_query_ms": round(page.slowest[0] * 1000, 1),
            "slowest_query": " ".join(page.slowest[1].split())[:400],
        }
        for page in every
    ]


def report(figures: list[dict[str, Any]], *, rows: int, rounds: int) -> dict[str, Any]:
    """The document that is written: the worst page first."""
    ordered = sorted(figures, key=lambda page: -page["median_ms"])
    worst = ordered[0]["median_ms"]
    return {
        "name": f"the console's pages on tables of {rows:,} rows",
        "goal": f"each under {GOAL_MS} ms",
        "reached": worst < GOAL_MS,
        "worst_median_ms": worst,
        "median_of_medians_ms": statistics.median(page["median_ms"] for page in ordered),
        "rounds": rounds,
        "pages": ordered,
    }


def _table(document: dict[str, Any]) -> Table:
    table = Table(title=document["name"], caption=f"goal: {document['goal']}")
    for column in ("list", "page"):
        table.add_column(column)
    for column in ("median ms", "max ms", "processor ms", "slowest query ms"):
        table.add_column(column, justify="right")
    for page in document["pages"]:
        figures = (f"{page[key]:g}" for key in ("median_ms", "max_ms", "processor_ms", "slowest_query_ms"))
        cells = [page["list"], page["page"], *figures]
        table.add_row(*cells, style="red" if page["median_ms"] >= GOAL_MS else "")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.console", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="also write the figures there")
    options = parser.parse_args()
    document = report(measured(rows=options.rows, rounds=options.rounds), rows=options.rows, rounds=options.rounds)
    Console(width=110).print(_table(document))
    if options.json:
        options.json.write_text(json.dumps(document, indent=2) + "\n")
    sys.exit(0 if document["reached"] else 1)


if __name__ == "__main__":
    main()
