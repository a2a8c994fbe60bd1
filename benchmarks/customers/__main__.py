"""Measures ``POST /api/v1/customers/`` against Django REST framework's bare create of the same table.

    python -m benchmarks.customers [--rounds 7] [--seconds 5] [--connections 8] [--json FILE]

Both are served by the same two gunicorn processes, on one PostgreSQL that syncs every commit. The runs are interleaved;
what counts is the median of the ratios of the runs of a round. The bare one has no event, no authentication, no
throttle, no strict parsing and no entity tag.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.customers.load import Load, load
from zenskar.sandbox import processes
from zenskar.sandbox.postgres import Postgres
from zenskar.sandbox.redis import Redis

ROOT = Path(__file__).resolve().parents[2]
GOAL = 0.7
CREATE_KEY = """
import django; django.setup()
from operations.keys import apikey_create
print(apikey_create(name="benchmark", scopes=["customers:write"], rate_limit=1_000_000_000).authorization)
"""


@dataclass(frozen=True)
class Server:
    """Where the two are served."""

    port: int
    authorization: str


def serve(stack: ExitStack) -> Server:
    """Start PostgreSQL, Redis and the web server, which the stack stops again."""
    folder = Path(tempfile.mkdtemp(prefix="zenskar-bench-"))
    processes.remove_afterwards(folder)
    folder.chmod(0o755)
    postgres = Postgres(data=folder / "postgres", port=processes.free_port())
    redis = Redis(port=processes.free_port(), log=folder / "redis.log")
    redis.start()
    stack.callback(redis.stop)
    postgres.start()
    stack.callback(postgres.stop)
    redis.wait_until_ready()
    environment = os.environ | {
        "DJANGO_SETTINGS_MODULE": "benchmarks.customers.settings",
        "SECRET_KEY": "benchmark-only-" + "0" * 50,
        "ALLOWED_HOSTS": "127.0.0.1",
        "HTTPS": "false",
        "DATABASE_URL": postgres.url,
        "REDIS_URL": redis.url,
        "KAFKA_BOOTSTRAP_SERVERS": "",
    }
    _run(environment, "manage.py", "migrate", "-v", "0")
    authorization = _run(environment, "-c", CREATE_KEY).splitlines()[-1]
    port = processes.free_port()
    command = [sys.executable, "-m", "gunicorn", "zenskar.wsgi", "--bind", f"127.0.0.1:{port}", "--no-control-socket"]
    command += ["--preload", "--worker-class", "gthread", "--workers", "2", "--threads", "8"]
    web = processes.start(command, log=folder / "web.log", env=environment, cwd=ROOT)
    stack.callback(processes.stop, web)
    _wait_until_it_answers(port, folder / "web.log")
    return Server(port, authorization)


def measured(server: Server, options: argparse.Namespace) -> list[tuple[Load, Load]]:
    """Rounds of (bare, product), after one round that only warms up."""

    def run(path: str, authorization: str | None, seconds: float) -> Load:
        return load(server.port, path, authorization=authorization, connections=options.connections, seconds=seconds)

    rounds = []
    for number in range(options.rounds + 1):
        seconds = options.seconds if number else min(2.0, options.seconds)
        bare = run("/bare/customers/", None, seconds)
        product = run("/api/v1/customers/", server.authorization, seconds)
        if number:
            rounds.append((bare, product))
    return rounds


def report(rounds: list[tuple[Load, Load]]) -> dict[str, Any]:
    """The figures, ratios first."""
    ratios = [product.per_second / bare.per_second for bare, product in rounds]
    return {
        "name": "POST /api/v1/customers/ against a bare create",
        "goal": f"at least {GOAL:.0%} of the requests a second",
        "ratio": _spread(ratios),
        "reached": statistics.median(ratios) >= GOAL,
        "bare": _figures([bare for bare, _ in rounds]),
        "product": _figures([product for _, product in rounds]),
        "rounds": len(rounds),
    }


def _figures(runs: list[Load]) -> dict[str, Any]:
    return {
        "requests_per_second": _spread([run.per_second for run in runs]),
        "p50_ms": _spread([run.p50 * 1000 for run in runs]),
        "p99_ms": _spread([run.p99 * 1000 for run in runs]),
    }


def _spread(values: list[float]) -> dict[str, float]:
    return {"median": round(statistics.median(values), 3), "min": round(min(values), 3), "max": round(max(values), 3)}


def _table(figures: dict[str, Any]) -> Table:
    table = Table(title=figures["name"], caption=f"ratio {_text(figures['ratio'])}; goal: {figures['goal']}")
    for column in ("", "requests/s", "p50 ms", "p99 ms"):
        table.add_column(column, justify="right" if column else "left")
    for name in ("bare", "product"):
        row = figures[name]
        table.add_row(name, *(_text(row[key]) for key in ("requests_per_second", "p50_ms", "p99_ms")))
    return table


def _text(spread: dict[str, float]) -> str:
    return f"{spread['median']:g} ({spread['min']:g} to {spread['max']:g})"


def _run(environment: dict[str, str], *arguments: str) -> str:
    command = [sys.executable, *arguments]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return done.stdout


def _wait_until_it_answers(port: int, log: Path) -> None:
    for _ in range(600):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/livez", timeout=2)
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise SystemExit(log.read_text()[-4000:])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.customers", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--json", type=Path, help="also write the figures there")
    options = parser.parse_args()
    with ExitStack() as stack:
        figures = report(measured(serve(stack), options))
    Console().print(_table(figures))
    text = json.dumps(figures, indent=2)
    if options.json:
        options.json.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
