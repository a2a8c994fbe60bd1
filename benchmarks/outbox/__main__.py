"""``python -m benchmarks.outbox``: how fast the log is, as a table and JSON.

Ratios come first: both sides of a ratio run in turn, on the same machine in the same minutes. Figures are medians with
their spread. The servers are the benchmark's own; PostgreSQL is durable (fsync, synchronous_commit).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.outbox.servers import servers

PARTS = (
    "hand",
    "peer",
    "peers",
    "hot",
    "stress",
    "old",
    "aged",
    "publish",
    "latency",
    "console",
    "replay",
    "successes",
)


@dataclass(frozen=True)
class Row:
    """One line: a figure, its goal, and the medians and spreads that it comes from."""

    name: str
    value: float
    goal: str
    reached: bool
    detail: str


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.outbox", description=__doc__)
    parser.add_argument("--events", type=int, default=50_000)
    parser.add_argument("--old", type=int, default=5_000_000, help="events already in the log")
    parser.add_argument("--aged", type=int, default=10_000_000, help="events already in the log, for all figures")
    parser.add_argument("--detours", type=int, default=100_000, help="aggregates that wait behind a dead event")
    parser.add_argument("--console", type=int, default=1_000_000, help="events in the console's list")
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
                print(f"{row.name:<58} {row.value:>9.2f}  {row.goal:<10} {mark:<8} {row.detail}", flush=True)
    if options.json:
        load = os.getloadavg()
        record = {"rows": [asdict(row) for row in rows], "cpus": os.cpu_count(), "load": load, "runs": options.runs}
        options.json.write_text(json.dumps(record, indent=2) + "\n")
    return 0 if all(row.reached for row in rows) else 1


def _measure(part: str, options: argparse.Namespace) -> list[Row]:
    from benchmarks.outbox import measures as m

    events, runs = options.events, options.runs
    if part == "hand":
        found = m.interleaved(
            runs,
            ours=lambda: m.drain_ours("uniform", events),
            hand=lambda: m.drain_hand("uniform", events),
        )
        return [_at_least("drain to Kafka, of a loop by hand", found, "ours", "hand", 0.6)]
    if part == "peer":
        found = m.interleaved(
            runs, ours=lambda: m.drain_ours("uniform", events), peer=lambda: m.drain_peer(max(2_000, events // 10))
        )
        return [_at_least("drain to Kafka, times django-outbox-pattern 3.2.1", found, "ours", "peer", 15)]
    if part == "peers":
        return _peers(events, min(runs, 3))
    if part == "stress":
        return _stress(events, min(runs, 3), options.detours)
    if part == "aged":
        return _aged(options.aged, events, min(runs, 3))
    if part == "hot":
        found = m.interleaved(
            runs, hot=lambda: m.drain_ours("hot", events), uniform=lambda: m.drain_ours("uniform", events)
        )
        return [_at_least("drain of 20 hot aggregates, of 1,000 uniform ones", found, "hot", "uniform", 0.8)]
    if part == "old":
        found = m.interleaved(
            min(runs, 3),
            old=lambda: m.drain_ours("uniform", events, old=options.old),
            empty=lambda: m.drain_ours("uniform", events),
        )
        return [_at_least(f"drain with {options.old:,} events before, of none", found, "old", "empty", 0.9)]
    if part == "publish":
        updates = m.interleaved(
            runs, alone=lambda: m.update(1_000, with_event=False), event=lambda: m.update(1_000, with_event=True)
        )
        singles = m.interleaved(runs, single=lambda: m.publish_single(1_000), bulk=lambda: m.publish_bulk(20_000))
        return [
            _at_most("customer update with its event, of one without (µs)", updates, "event", "alone", 1.6),
            _at_least("bulk publish, times single publish (µs per event)", singles, "single", "bulk", 10),
        ]
    if part == "latency":
        relay = [m.latency(15, 200, m.RELAY) for _ in range(min(runs, 3))]
        beat = [m.latency(10, 20, m.BEAT) for _ in range(min(runs, 3))]
        p50, p99 = ([run[key] for run in relay] for key in ("p50", "p99"))
        return [
            _plain("commit to Kafka at 200/s with a relay, p50 (ms)", p50, 25),
            _plain("commit to Kafka at 200/s with a relay, p99 (ms)", p99, 75),
            _plain("commit to Kafka, drained every second, worst (ms)", [run["max"] for run in beat], 1_500),
        ]
    if part == "replay":
        seconds = [m.replay(10_000) for _ in range(min(runs, 3))]
        return [_plain("10,000 dead deliveries replayed and delivered into nothing (s)", seconds, 30)]
    if part == "successes":
        found = m.interleaved(
            min(runs, 3), kept=lambda: m.drain_nothing(events, kept=True), off=lambda: m.drain_nothing(events)
        )
        return [_at_least("drain into nothing with successes kept, of without", found, "kept", "off", 0.2)]
    return [_plain(f"console, list of {options.console:,} events (ms)", [m.console(options.console)], 300)]


def _peers(events: int, runs: int) -> list[Row]:
    """Into nothing, beside each peer; of the ordered ones the best is what counts."""
    from benchmarks.outbox import measures as m
    from benchmarks.outbox.peers import PEERS, Drained, peer_drain, peer_runs

    peers = [peer for peer in PEERS if peer_runs(peer)]
    rows = [
        Row(f"{peer.name} needs Python {peer.python[0]}.{peer.python[1]}", 0.0, "", False, "not measured")
        for peer in PEERS
        if peer not in peers
    ]
    for kind, what, goal in (("uniform", "1,000 keys", 15), ("hot", "20 hot keys", 50)):
        ours: list[float] = []
        theirs: dict[str, list[Drained]] = {peer.name: [] for peer in peers}
        for _ in range(runs):
            ours.append(m.drain_nothing(events, kind))
            for peer in peers:
                theirs[peer.name].append(peer_drain(peer, kind))
        rates = {name: [one.rate for one in found] for name, found in theirs.items()}
        best = max((peer for peer in peers if peer.is_ordered), key=lambda peer: statistics.median(rates[peer.name]))
        found = {"ours": ours, best.name: rates[best.name]}
        rows.append(_at_least(f"drain at {what}, times {best.name}", found, "ours", best.name, goal))
        for peer in peers:
            ratio = statistics.median(ours) / statistics.median(rates[peer.name])
            turned = sum(one.inversions for one in theirs[peer.name])
            said = f"{peer.promises}; {peer.how}; {turned} inversions; {_spread({peer.name: rates[peer.name]})}"
            rows.append(Row(f"  at {what}, times {peer.name}", ratio, "", True, said))
    return rows


def _stress(events: int, runs: int, detours: int) -> list[Row]:
    from benchmarks.outbox import measures as m
    from benchmarks.outbox import stress

    found = m.interleaved(
        runs,
        plain=lambda: stress.plain(events),
        snapshot=lambda: stress.snapshot(events),
        blocked=lambda: stress.poison_blocked(events),
        passed=lambda: stress.poison_passed(events),
        detours=lambda: stress.detours(events, detours),
    )
    names = {
        "snapshot": "an old snapshot held",
        "blocked": "1 % of aggregates behind poison",
        "passed": "1 % of events poison, passed",
        "detours": f"{detours:,} open detours",
    }
    return [
        _at_least(f"drain with {text}, of none", {one: found[one] for one in (name, "plain")}, name, "plain", 0.85)
        for name, text in names.items()
    ]


def _aged(count: int, events: int, runs: int) -> list[Row]:
    from benchmarks.outbox.aged import aged

    found = aged(count, events, runs)
    rates = [
        _at_least(f"{name} with {count:,} events before, of none", found[name], "full", "empty", 0.9)
        for name in ("publish", "drain")
    ]
    pages = {"list": "console, list of events", "board": "console, subscribers", "statistics": "statistics of the API"}
    for name, text in {**pages, "metrics": "/metrics"}.items():
        rates.append(_at_most(f"{text} with {count:,} events, times none (ms)", found[name], "full", "empty", 1.1))
    return [*rates, _plain(f"/metrics with {count:,} events (ms)", found["metrics"]["full"], 100)]


def _at_least(name: str, found: dict[str, list[float]], over: str, under: str, goal: float) -> Row:
    ratio = statistics.median(found[over]) / statistics.median(found[under])
    return Row(name, ratio, f">= {goal:g}", ratio >= goal, _spread(found))


def _at_most(name: str, found: dict[str, list[float]], over: str, under: str, goal: float) -> Row:
    ratio = statistics.median(found[over]) / statistics.median(found[under])
    return Row(name, ratio, f"<= {goal:g}", ratio <= goal, _spread(found))


def _plain(name: str, values: list[float], goal: float) -> Row:
    value = statistics.median(values)
    return Row(name, value, f"<= {goal:g}", value <= goal, f"{min(values):.0f} to {max(values):.0f}")


def _spread(found: dict[str, list[float]]) -> str:
    return "; ".join(
        f"{name} {statistics.median(values):,.0f} ({min(values):,.0f} to {max(values):,.0f})"
        for name, values in found.items()
    )


if __name__ == "__main__":
    sys.exit(main())
