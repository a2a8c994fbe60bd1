"""Peers: other outboxes and job queues on PostgreSQL, drained as they ship, each best tuned, into the same sink.

They live in an environment of their own (``.bench/``), never in the product's, with the newest Python that is here: one
of them needs 3.12. Each is one script in this folder, run by that Python with a database of its own.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import psycopg

from benchmarks.outbox.load import PAYLOAD

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent.parent
FOLDER = ROOT / ".bench" / "peers"
LONGEST_SECONDS = 240
PREFERRED = ("3.13", "3.12", "3.14", "3.11")


@dataclass(frozen=True)
class Peer:
    """One of them.

    Attributes:
        name: of its distribution, and with underscores of its script.
        promises: what it says of order; like is compared with like.
        uniform, hot: events for a run of some seconds.
        python: the least Python that it takes.
        how: how it is tuned.
    """

    name: str
    promises: str
    uniform: int
    hot: int
    how: str
    python: tuple[int, int] = (3, 11)

    @property
    def is_ordered(self) -> bool:
        return self.promises.startswith("ordered")


PEERS = (
    Peer("django-reliable-outbox", "ordered by key", 5_000, 1_000, "4 threads, batches of 100", (3, 12)),
    Peer("django-jaiminho", "ordered as a whole", 1_500, 1_500, "keep-order, one stream"),
    Peer("django-outbox-pattern", "ordered as a whole", 5_000, 5_000, "one transaction, no waits"),
    Peer("django-domain-events", "unordered", 1_000, 1_000, "batches of 500"),
    Peer("pgqueuer", "job queue", 30_000, 30_000, "asyncpg, batches of 500"),
    Peer("procrastinate", "job queue", 1_500, 1_500, "10 at a time"),
)


@dataclass(frozen=True)
class Drained:
    """Events a second, and how many came after a later one of their key."""

    rate: float
    inversions: int


def peer_runs(peer: Peer) -> bool:
    """Whether the Python of the environment is new enough for it."""
    return _version(peers_python()) >= peer.python


def peer_drain(peer: Peer, kind: str, *, sink: str = "nothing", events: int | None = None) -> Drained:
    """Drain once.

    Args:
        peer: which.
        kind: of keys, as ``load.keys`` has it.
        sink: ``nothing``, or ``kafka`` for Kafka's mock; of django-outbox-pattern alone.
        events: how many; the peer's own number without it.
    """
    count = events or (peer.hot if kind == "hot" else peer.uniform)
    script = HERE / f"{peer.name.replace('-', '_')}_peer.py"
    environment = {name: text for name, text in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
    environment |= {"PEER_DATABASE_URL": peers_database(), "PEER_PAYLOAD": json.dumps(PAYLOAD), "PEER_SINK": sink}
    done = subprocess.run(
        [peers_python(), script, kind, str(count)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        cwd=FOLDER,
        timeout=LONGEST_SECONDS,
    )
    if done.returncode:
        raise RuntimeError(f"{peer.name}: {done.stderr[-3000:]}")
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["events"] == count, (peer.name, result)
    return Drained(count / float(result["seconds"]), int(result["inversions"]))


def peers_database() -> str:
    """An empty database beside ours."""
    url = os.environ["DATABASE_URL"].rpartition("/")[0] + "/peer"
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as session:
        session.execute("DROP DATABASE IF EXISTS peer WITH (FORCE)")
        session.execute("CREATE DATABASE peer")
    return url


def peers_python() -> Path:
    """The Python that the peers are installed into; made when there is none, or their versions have changed."""
    python = FOLDER / "bin" / "python"
    requirements = ROOT / "requirements-bench.txt"
    stamp = FOLDER / "requirements.txt"
    if stamp.exists() and stamp.read_text() == requirements.read_text():
        return python
    shutil.rmtree(FOLDER, ignore_errors=True)
    newest = _newest_python()
    if uv := shutil.which("uv"):
        subprocess.run([uv, "venv", "-q", "--python", newest, FOLDER], check=True)
        subprocess.run([uv, "pip", "install", "-q", "--python", python, "-r", requirements], check=True)
    else:
        subprocess.run([newest, "-m", "venv", FOLDER], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "-r", requirements], check=True)
    stamp.write_text(requirements.read_text())
    return python


def _newest_python() -> str:
    """A Python that all peers take, from the path or from pyenv; else ours."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for version in PREFERRED:
        if (found := shutil.which(f"python{version}")) and _works(found):
            return found
        for folder in sorted(pyenv.glob(f"{version}.*"), reverse=True):
            if _works(str(folder / "bin" / "python")):
                return str(folder / "bin" / "python")
    return sys.executable


def _works(python: str) -> bool:
    return subprocess.run([python, "-c", "import ssl, venv"], capture_output=True, check=False).returncode == 0


def _version(python: Path) -> tuple[int, int]:
    text = subprocess.run([python, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"(\d+)\.(\d+)", text)
    assert found is not None
    return int(found[1]), int(found[2])
