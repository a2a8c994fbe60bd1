"""Measures how much of the rate limit is used at full load, and how often the other side refuses.

    python -m benchmarks.customers.rate [--rate 25] [--processes 2] [--seconds 20] [--rounds 3] [--json FILE]

The Stripe sandbox counts the calls of any second and refuses those beyond the limit, as Stripe does; the same limit is
configured here. More customers wait than can be sent in that time, of all three classes, and processes of the product's
own runner send them. What counts is what the sandbox accepted after the first two seconds.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from benchmarks.customers.sandbox import ROOT, sandbox_asked, sandbox_started, sandbox_told
from benchmarks.outbox.servers import servers
from benchmarks.telling import figures_tell
from zenskar.sandbox.stripe.core import DEFAULT_KEY

GOAL: Final = 0.95
"""Of the limit."""
REFUSED_GOAL: Final = 0.01
"""Of the calls."""
WARM_UP: Final = 2.0
WORK: Final = """
import sys, time
import django; django.setup()
from customers.sync.runner import sync_due_once
ends, begun = time.monotonic() + float(sys.argv[1]), time.process_time()
while time.monotonic() < ends:
    sync_due_once(budget=min(5.0, ends - time.monotonic()))
print(time.process_time() - begun)
"""


def measured(*, rate: int, processes: int, seconds: float, rounds: int) -> dict[str, Any]:
    """Figures of so many rounds."""
    with ExitStack() as stack:
        address = sandbox_started(stack)
        os.environ.update(STRIPE_API_KEY=DEFAULT_KEY, STRIPE_API_BASE=address, STRIPE_RATE_LIMIT=str(rate))
        stack.enter_context(servers())
        runs = [_round(address, rate, processes, seconds) for _ in range(rounds)]
    return {
        "name": "The rate limit at full load",
        "goal": f"at least {GOAL:.0%} of the limit accepted, less than {REFUSED_GOAL:.0%} refused",
        "rate": rate,
        "processes": processes,
        "seconds": seconds,
        "runs": runs,
        "used": round(statistics.median(run["used"] for run in runs), 4),
        "reached": all(run["used"] >= GOAL and run["refused"] < REFUSED_GOAL for run in runs),
    }


def _round(address: str, rate: int, processes: int, seconds: float) -> dict[str, Any]:
    from customers.models import Customer, Priority, SyncState

    SyncState.objects.all().delete()
    Customer.objects.all().delete()
    made = Customer.objects.bulk_create(Customer(name="Ada") for _ in range(int(rate * (seconds + 5))))
    account = {"integration": "stripe", "livemode": False, "account": ""}
    SyncState.objects.bulk_create(SyncState(customer=one, **account) for one in made)
    for number, priority in enumerate(Priority):
        chosen = SyncState.objects.filter(customer__in=made[number :: len(Priority)])
        chosen.look_again(priority=priority)
    sandbox_told(address, "limits", {"per_second": rate})
    begins = sandbox_asked(address, "state")["now"]
    command = [sys.executable, "-c", WORK, str(seconds)]
    workers = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(processes)]
    said = [worker.communicate()[0] for worker in workers]
    if any(worker.returncode for worker in workers):
        raise SystemExit("A worker failed.")
    lines = sandbox_asked(address, "requests")["data"]
    lines = [line for line in lines if line["started_at"] > begins]
    cpu = sum(float(one) for one in said)
    return _figures(lines, rate) | {"cpu_per_100_calls": round(100 * cpu / len(lines), 3)}


def _figures(lines: list[dict[str, Any]], rate: int) -> dict[str, Any]:
    begun = lines[0]["started_at"] + WARM_UP
    counted = [line for line in lines if line["started_at"] >= begun]
    accepted = [line["started_at"] for line in counted if line["status"] != 429]
    lasted = accepted[-1] - accepted[0]
    return {
        "used": round((len(accepted) - 1) / lasted / rate, 4),
        "refused": round(1 - len(accepted) / len(counted), 4),
        "calls": len(counted),
        "statuses": dict(Counter(str(line["status"]) for line in counted)),
    }


def _table(figures: dict[str, Any]) -> Table:
    title = f"{figures['name']}: {figures['rate']} calls a second, {figures['processes']} processes"
    table = Table(title=title, caption=figures["goal"])
    for column in ("of the limit", "refused", "calls", "CPU s for 100 calls"):
        table.add_column(column, justify="right")
    for run in figures["runs"]:
        table.add_row(f"{run['used']:.1%}", f"{run['refused']:.2%}", str(run["calls"]), str(run["cpu_per_100_calls"]))
    return table


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.customers.rate", description=__doc__)
    parser.add_argument("--rate", type=int, default=25)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="also write the figures there")
    options = parser.parse_args()
    figures = measured(rate=options.rate, processes=options.processes, seconds=options.seconds, rounds=options.rounds)
    Console().print(_table(figures))
    figures_tell(figures, options.json)
    sys.exit(0 if figures["reached"] else 1)


if __name__ == "__main__":
    main()
