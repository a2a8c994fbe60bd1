"""Measures creating and reading customers and accepting webhooks, each against the plainest thing that does it.

    python -m benchmarks.customers [--only create,key,replay,webhook,read,merge] [--rounds 7] [--seconds 5]

Both of a pair are served by the same two gunicorn processes, on one PostgreSQL that syncs every commit. The runs are
interleaved; what counts is the median of the ratios of the runs of a round. The bare create has no event, no
authentication, no throttle, no strict parsing and no entity tag; the bare webhook knows no duplicates. The merge of a
customer with its record is measured alone, in this process.
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
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from rich.console import Console
from rich.table import Table

from benchmarks.customers.load import Load, create_request, load, read_request, webhook_request
from benchmarks.telling import figures_tell
from customers.sync.merge import merge
from zenskar.sandbox import processes
from zenskar.sandbox.postgres import Postgres
from zenskar.sandbox.redis import Redis

ROOT = Path(__file__).resolve().parents[2]
SECRET = "whsec_benchmark"
MERGE_GOAL_US = 200.0
CREATE_KEY = """
import django; django.setup()
from operations.keys import apikey_create
scopes = ["customers:read", "customers:write"]
print(apikey_create(name="benchmark", scopes=scopes, rate_limit=1_000_000_000).authorization)
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
        "STRIPE_API_KEY": "sk_test_benchmark",
        "STRIPE_API_BASE": "http://127.0.0.1:1",
        "STRIPE_WEBHOOK_SECRET": SECRET,
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


@dataclass(frozen=True)
class Pair:
    """Two ways of the same thing: what is measured, and what it is measured against."""

    name: str
    goal: float
    status: int
    bare: Callable[[], bytes]
    product: Callable[[], bytes]


def pairs(server: Server) -> dict[str, Pair]:
    """By the name by which it is chosen."""
    port, key = server.port, server.authorization
    customer = _customer(server)
    creation = "/api/v1/customers/"
    replayed = create_request(port, creation, key, uuid4().hex)
    load(lambda: replayed, port=port, status=201, connections=1, seconds=0.01)
    product, cached = f"/api/v1/customers/{customer}", f"/cached/customers/{customer}"
    return {
        "create": Pair(
            "POST /api/v1/customers/ against a bare create",
            0.7,
            201,
            lambda: create_request(port, "/bare/customers/", None),
            lambda: create_request(port, "/api/v1/customers/", key),
        ),
        "key": Pair(
            "POST /api/v1/customers/ with an Idempotency-Key against the same without",
            0.8,
            201,
            lambda: create_request(port, creation, key),
            lambda: create_request(port, creation, key, uuid4().hex),
        ),
        "replay": Pair(
            "the kept answer to a repeated POST /api/v1/customers/ against the first one",
            2.0,
            201,
            lambda: create_request(port, creation, key, uuid4().hex),
            lambda: replayed,
        ),
        "webhook": Pair(
            "POST /webhooks/stripe against a bare view that verifies and stores",
            0.8,
            200,
            lambda: webhook_request(port, "/bare/webhooks", SECRET),
            lambda: webhook_request(port, "/webhooks/stripe", SECRET),
        ),
        "read": Pair(
            "GET /api/v1/customers/{id} against the same from a cache that proves nothing",
            0.7,
            200,
            lambda: read_request(port, cached, key),
            lambda: read_request(port, product, key),
        ),
    }


def measured(pair: Pair, port: int, options: argparse.Namespace) -> list[tuple[Load, Load]]:
    """Rounds of (bare, product), after one round that only warms up."""

    def run(request: Callable[[], bytes], seconds: float) -> Load:
        return load(request, port=port, status=pair.status, connections=options.connections, seconds=seconds)

    rounds = []
    for number in range(options.rounds + 1):
        seconds = options.seconds if number else min(2.0, options.seconds)
        bare, product = run(pair.bare, seconds), run(pair.product, seconds)
        if number:
            rounds.append((bare, product))
    return rounds


def report(pair: Pair, rounds: list[tuple[Load, Load]]) -> dict[str, Any]:
    """The figures, ratios first."""
    ratios = [product.per_second / bare.per_second for bare, product in rounds]
    return {
        "name": pair.name,
        "goal": f"at least {pair.goal:.0%} of the requests a second",
        "ratio": _spread(ratios),
        "reached": statistics.median(ratios) >= pair.goal,
        "bare": _figures([bare for bare, _ in rounds]),
        "product": _figures([product for _, product in rounds]),
        "rounds": len(rounds),
    }


def merging() -> dict[str, Any]:
    """Microseconds of one three-way merge of a customer with all that it can hold."""
    base: dict[str, Any] = {"name": "John", "email": "john@example.com", "phone": "1", "address": {"city": "Bonn"}}
    base |= {f"metadata.key{number}": f"value {number}" for number in range(49)}
    ours = {**base, "name": "John Doe", "metadata.key1": "here", "metadata.key2": "both"}
    theirs = {**base, "phone": "2", "metadata.key2": "there", "metadata.key3": "there"}
    took = []
    for _ in range(2_000):
        began = time.perf_counter()
        merge(base=base, ours=ours, theirs=theirs, owner=lambda field: "person")
        took.append((time.perf_counter() - began) * 1e6)
    return {
        "name": "one merge of 53 fields, five of them changed",
        "goal": f"under {MERGE_GOAL_US:g} microseconds",
        "microseconds": _spread(took),
        "reached": statistics.median(took) < MERGE_GOAL_US,
    }


def _customer(server: Server) -> str:
    address = f"http://127.0.0.1:{server.port}/api/v1/customers/"
    headers = {"Authorization": server.authorization, "Content-Type": "application/json"}
    request = urllib.request.Request(address, b'{"name": "John Doe", "metadata": {"plan": "gold"}}', headers)
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
        return str(json.load(answer)["id"])


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
    parser.add_argument("--only", default="create,key,replay,webhook,read,merge", help="names, with commas")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--json", type=Path, help="also write the figures there")
    options = parser.parse_args()
    wanted = options.only.split(",")
    figures: list[dict[str, Any]] = []
    if set(wanted) - {"merge"}:
        with ExitStack() as stack:
            server = serve(stack)
            for name, pair in pairs(server).items():
                if name in wanted:
                    figures.append(report(pair, measured(pair, server.port, options)))
                    Console().print(_table(figures[-1]))
    if "merge" in wanted:
        figures.append(merging())
    figures_tell(figures, options.json)


if __name__ == "__main__":
    main()
