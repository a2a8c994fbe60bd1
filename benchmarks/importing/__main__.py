"""Measures ``manage.py import_customers``: customers with their events, into a PostgreSQL that syncs every commit.

    python -m benchmarks.importing [--customers 100000] [--rounds 3] [--json FILE]

Each round imports another file into the same database, as a process of its own, start and end included. Half of the
customers have an address and metadata, one in a hundred is refused for its e-mail.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.outbox.servers import servers
from benchmarks.telling import figures_tell

ROOT = Path(__file__).resolve().parents[2]
GOAL_SECONDS = 60.0
SOME_REJECTED = 3


def _file(path: Path, *, customers: int, nth: int) -> Path:
    with path.open("w") as file:
        for number in range(customers):
            customer: dict[str, Any] = {"name": f"Ada Lovelace {number}", "email": f"ada.{nth}.{number}@example.com"}
            if number % 100 == 99:
                customer["email"] = "no e-mail"
            if number % 2:
                customer["phone"] = f"+49 228 {number:06}"
                customer["address"] = {"line1": f"Am Hof {number % 99}", "city": "Bonn", "country": "DE"}
                customer["metadata"] = {"plan": "gold", "source": "import", "number": str(number)}
            file.write(json.dumps(customer) + "\n")
    return path


def _seconds(path: Path) -> float:
    began = time.monotonic()
    done = subprocess.run([sys.executable, "manage.py", "import_customers", str(path)], cwd=ROOT, check=False)
    if done.returncode != SOME_REJECTED:
        raise SystemExit(f"import_customers ended with {done.returncode}")
    return time.monotonic() - began


def measured(*, customers: int, rounds: int) -> list[float]:
    """Seconds of each round, after one with a hundredth of the customers that only warms up."""
    with tempfile.TemporaryDirectory(prefix="zenskar-bench-") as folder, servers():
        _seconds(_file(Path(folder) / "warm.ndjson", customers=max(100, customers // 100), nth=0))
        return [
            _seconds(_file(Path(folder) / f"{nth}.ndjson", customers=customers, nth=nth))
            for nth in range(1, rounds + 1)
        ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.importing", description=__doc__)
    parser.add_argument("--customers", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="also write the figures there")
    options = parser.parse_args()
    runs = measured(customers=options.customers, rounds=options.rounds)
    median = statistics.median(runs)
    figures = {
        "name": f"import of {options.customers:,} customers with their events",
        "goal": f"100,000 in {GOAL_SECONDS:g} s",
        "seconds": {"median": round(median, 2), "min": round(min(runs), 2), "max": round(max(runs), 2)},
        "customers_per_second": round(options.customers / median),
        "reached": median <= GOAL_SECONDS * options.customers / 100_000,
        "rounds": len(runs),
    }
    table = Table(title=figures["name"], caption=f"goal: {figures['goal']}")
    for column in ("median s", "min s", "max s", "customers/s"):
        table.add_column(column, justify="right")
    table.add_row(*(f"{value:g}" for value in (*figures["seconds"].values(), figures["customers_per_second"])))
    Console().print(table)
    figures_tell(figures, options.json)
    if not figures["reached"]:
        sys.exit(1)


if __name__ == "__main__":
    main()
