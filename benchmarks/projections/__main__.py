"""``python -m benchmarks.projections``: how fast read models are built, as a table and JSON.

Ratios come first: both sides of a ratio run in turn, on the same machine in the same minutes. Figures are medians with
their spread. The servers are the benchmark's own; PostgreSQL is durable (fsync, synchronous_commit).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.outbox.servers import servers
from benchmarks.projections.peer import Built

PARTS = ("same", "hand", "peer", "single", "four", "old", "latency")


@dataclass(frozen=True)
class Row:
    """One line: a figure, its goal, and the medians and spreads that it comes from."""

    name: str
    value: float
    goal: str
    reached: bool
    detail: str


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.projections", description=__doc__)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--old", type=int, default=10_000_000, help="events already in the log")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--only", choices=PARTS, action="append")
    options = parser.parse_args(arguments)
    rows: list[Row] = []
    with servers():
        for part in options.only or PARTS:
            for row in _measure(part, options):
                rows.append(row)
                mark = "reached" if row.reached else "MISSED"
                print(f"{row.name:<62} {row.value:>12,.2f}  {row.goal:<12} {mark:<8} {row.detail}", flush=True)
    if options.json:
        load = os.getloadavg()
        record = {"rows": [asdict(row) for row in rows], "cpus": os.cpu_count(), "load": load, "runs": options.runs}
        options.json.write_text(json.dumps(record, indent=2) + "\n")
    return 0 if all(row.reached for row in rows) else 1


def _measure(part: str, options: argparse.Namespace) -> list[Row]:
    from benchmarks.projections import measures as m

    events, runs = options.events, options.runs
    if part == "same":
        same = m.same_rows(min(events, 20_000))
        return [Row("the same rows by batch, event by event and by hand", float(same), "= 1", same, "by checksum")]
    if part == "hand":
        found = _interleaved(runs, ours=lambda: m.catch_up("ByBatch", events=events), hand=lambda: m.hand(events))
        return [
            _ratio("catch-up by batch, of a loop by hand", found, "ours", "hand", 0.5),
            _speed("catch-up by batch, events/s", found["ours"], 50_000),
        ]
    if part == "peer":
        return _beside_peer(events, min(runs, 3))
    if part == "single":
        found = _interleaved(runs, ours=lambda: m.catch_up("Single", events=events // 4))
        return [_speed("catch-up event by event, events/s", found["ours"], 10_000)]
    if part == "four":
        four = ("ByBatch", "Second", "Third", "Fourth")
        found = _interleaved(
            runs, four=lambda: m.catch_up(*four, events=events), one=lambda: m.catch_up("ByBatch", events=events)
        )
        return [_ratio("four projections, of the speed of one", found, "four", "one", 1 / 3)]
    if part == "old":
        alone, behind = m.catch_up_after(options.old, events=events, runs=min(runs, 3))
        ratio, detail = _cost(behind, alone)
        return [Row(f"an event's cost behind {options.old:,} others, of alone", ratio, "<= 1.10", ratio <= 1.1, detail)]
    measured = [m.latency(10, 500) for _ in range(min(runs, 3))]
    p50, p99 = ([run[key] for run in measured] for key in ("p50", "p99"))
    return [
        Row("commit to read model at 500/s, p50 (ms)", statistics.median(p50), "<= 100", True, _range(p50)),
        Row(
            "commit to read model at 500/s, p99 (ms)",
            statistics.median(p99),
            "<= 100",
            statistics.median(p99) <= 100,
            _range(p99),
        ),
    ]


def _beside_peer(events: int, runs: int) -> list[Row]:
    """The peer's runner has a hundredth of the events, and what it is measured against as many as its batched loop."""
    from benchmarks.projections import measures as m
    from benchmarks.projections.peer import peer_build

    sums: dict[str, set[str]] = {}
    computed: dict[str, list[float]] = {}

    def built(side: str, found: Built) -> float:
        sums.setdefault(side.removeprefix("our ").removeprefix("their "), set()).add(str(found.checksum))
        computed.setdefault(side, []).append(found.microseconds)
        return found.rate

    many, few, server = max(2_000, events), max(1_000, events // 100), m.postmaster()
    found = _interleaved(
        runs,
        **{
            "our many": lambda: built("our many", m.catch_up_like_peer(many)),
            "their many": lambda: built("their many", peer_build("batch", many, postmaster=server)),
            "our few": lambda: built("our few", m.catch_up_like_peer(few)),
            "their few": lambda: built("their few", peer_build("runner", few, postmaster=server)),
        },
    )
    same = all(len(side) == 1 for side in sums.values())
    work = statistics.median(computed["their many"]) / statistics.median(computed["our many"])
    detail = "; ".join(f"{side} {statistics.median(values):.1f} us" for side, values in computed.items())
    return [
        Row("the same rows as eventsourcing's, in each run", float(same), "= 1", same, "by checksum"),
        _ratio("catch-up, times eventsourcing 9.5.6's runner", found, "our few", "their few", 25),
        _ratio("catch-up, times a batched loop on its events", found, "our many", "their many", 2),
        Row("processor time of that loop, times ours", work, "", True, f"client and server, an event: {detail}"),
    ]


def _interleaved(runs: int, **sides: Callable[[], float]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(runs):
        for name, side in sides.items() if number % 2 == 0 else reversed(list(sides.items())):
            found[name].append(side())
    return found


def _ratio(name: str, found: dict[str, list[float]], over: str, under: str, goal: float) -> Row:
    ratio = statistics.median(found[over]) / statistics.median(found[under])
    sides = {side: found[side] for side in (over, under)}
    detail = "; ".join(f"{side} {statistics.median(values):,.0f} ({_range(values)})" for side, values in sides.items())
    return Row(name, ratio, f">= {goal:.2f}", ratio >= goal, detail)


def _cost(over: list[Built], under: list[Built]) -> tuple[float, str]:
    """Processor time of an event, of another's, and what it is made of."""
    first, second = (statistics.median(one.microseconds for one in side) for side in (over, under))
    rates = [", ".join(f"{one.rate:,.0f}" for one in side) for side in (under, over)]
    return first / second, f"{first:.1f} us of {second:.1f}; events/s alone {rates[0]}, behind them {rates[1]}"


def _speed(name: str, values: list[float], goal: float) -> Row:
    value = statistics.median(values)
    return Row(name, value, f">= {goal:,.0f}", value >= goal, _range(values))


def _range(values: list[float]) -> str:
    return f"{min(values):,.0f} to {max(values):,.0f}"


if __name__ == "__main__":
    sys.exit(main())
