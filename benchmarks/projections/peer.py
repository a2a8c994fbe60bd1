"""eventsourcing, on the same events: run in the peers' environment, with a database of its own."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from benchmarks.outbox.load import PAYLOAD
from benchmarks.outbox.peers import LONGEST_SECONDS, peers_database, peers_python

SCRIPT: Final = Path(__file__).resolve().with_name("eventsourcing_peer.py")
PER_AGGREGATE: Final = 20
Way = Literal["runner", "batch"]


@dataclass(frozen=True)
class Built:
    """Events a second, the processors' microseconds for each, and the checksum of the table without its keys."""

    rate: float
    microseconds: float
    checksum: list[str]


def peer_build(way: Way, events: int, *, postmaster: int) -> Built:
    """Build the read model once, by its runner as shipped or by a batched loop on its events.

    Args:
        way: which.
        events: how many.
        postmaster: process of the server.
    """
    environment = {name: text for name, text in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
    environment |= {"PEER_DATABASE_URL": peers_database(), "PEER_PAYLOAD": json.dumps(PAYLOAD)}
    environment["PEER_POSTMASTER"] = str(postmaster)
    done = subprocess.run(
        [peers_python(), SCRIPT, way, str(events)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=LONGEST_SECONDS,
    )
    if done.returncode:
        raise RuntimeError(f"eventsourcing: {done.stderr[-3000:]}")
    result = json.loads(done.stdout.splitlines()[-1])
    return Built(
        events / float(result["seconds"]), float(result["computed"] or "nan") / events * 1e6, result["checksum"]
    )
