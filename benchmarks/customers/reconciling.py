"""Measures what comparing a whole account costs us: CPU for each call, when the rate limit alone says how fast it goes.

    python -m benchmarks.customers.reconciling [--customers 5000] [--rate 100] [--json FILE]

The Stripe sandbox runs in a process of its own and PostgreSQL in its own, so that the CPU of this process is the
comparison's. First the account is imported, then both sides, which agree, are compared. CPU is that of the process, in
seconds for 100 calls; at 100 calls a second that is the share of one core.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from benchmarks.customers.sandbox import sandbox_asked, sandbox_started, sandbox_told
from benchmarks.outbox.servers import servers
from benchmarks.telling import figures_tell
from zenskar.sandbox.stripe.core import DEFAULT_KEY

GOAL: Final = 0.5
"""CPU seconds for 100 calls."""
PAGE: Final = 100
DAYS: Final = 1_000
"""Over which the customers came to be."""


def measured(*, customers: int, rate: int) -> dict[str, Any]:
    """Figures of an import and of a comparison of so many customers."""
    with ExitStack() as stack:
        address = _sandbox(stack, customers)
        os.environ.update(STRIPE_API_KEY=DEFAULT_KEY, STRIPE_API_BASE=address, STRIPE_RATE_LIMIT=str(rate))
        os.environ.update(RECONCILE_GRACE="0", LOG_LEVEL="WARNING")
        stack.enter_context(servers())
        imported = _run("customers.import", address)
        compared = _run("customers.reconcile", address)
    if imported["result"]["imported"] != customers or compared["result"]["differences"]:
        raise SystemExit(f"It did not do what it is measured for: {imported['result']} {compared['result']}")
    return {
        "name": "Comparing a whole account",
        "goal": f"at most {GOAL} CPU seconds for 100 calls of a comparison",
        "customers": customers,
        "rate": rate,
        "import": imported,
        "comparison": compared,
        "reached": compared["cpu_per_100_calls"] <= GOAL,
    }


def _run(kind: str, address: str) -> dict[str, Any]:
    from operations.long_actions.documents import operation_document
    from operations.long_actions.planning import operation_create
    from operations.long_actions.runner import operation_run
    from operations.long_actions.steering import operation_start

    operation = operation_create(kind=kind, filter={"integration": "stripe"}, reason="measure", actor="bench")
    operation_start(operation_id=operation.pk, actor="bench")
    before, begun, cpu = _calls(address), time.monotonic(), _cpu()
    operation = operation_run(operation.pk, seconds=3_600)
    seconds, cpu = time.monotonic() - begun, _cpu() - cpu
    result = operation_document(operation)["result"]
    calls = _calls(address) - before
    return {
        "seconds": round(seconds, 2),
        "cpu_seconds": round(cpu, 2),
        "calls": calls,
        "calls_per_second": round(calls / seconds, 1),
        "cpu_per_100_calls": round(100 * cpu / calls, 3),
        "customers_per_second": round(result["compared"] / seconds),
        "megabytes": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "state": operation.state,
        "result": result,
    }


def _calls(address: str) -> int:
    """How many the sandbox has answered."""
    return int(sandbox_asked(address, "state")["requests"])


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _sandbox(stack: ExitStack, customers: int) -> str:
    """A sandbox with so many customers; its address."""
    address = sandbox_started(stack)
    sandbox_told(address, "customers/fill", {"count": customers, "days": DAYS})
    # A limit of the sandbox's own would measure the sandbox.
    sandbox_told(address, "limits", {"per_second": None})
    return address


def _table(figures: dict[str, Any]) -> Table:
    title = f"{figures['name']}: {figures['customers']:,} customers, {figures['rate']} calls a second"
    table = Table(title=title, caption=figures["goal"])
    for column in ("", "seconds", "calls/s", "customers/s", "CPU s for 100 calls", "MB"):
        table.add_column(column, justify="right" if column else "left")
    for name in ("import", "comparison"):
        row = figures[name]
        keys = ("seconds", "calls_per_second", "customers_per_second", "cpu_per_100_calls", "megabytes")
        table.add_row(name, *(f"{row[key]:,}" for key in keys))
    return table


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.customers.reconciling", description=__doc__)
    parser.add_argument("--customers", type=int, default=5_000)
    parser.add_argument("--rate", type=int, default=100)
    parser.add_argument("--json", type=Path, help="also write the figures there")
    options = parser.parse_args()
    figures = measured(customers=options.customers, rate=options.rate)
    Console().print(_table(figures))
    figures_tell(figures, options.json)
    sys.exit(0 if figures["reached"] else 1)


if __name__ == "__main__":
    main()
