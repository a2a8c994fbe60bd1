"""What our database backend costs beside Django's, on a PostgreSQL and a Redis of its own.

    python -m benchmarks.dbresilience [checkout forty_threads …] [--json FILE]

The exit status is 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
from pathlib import Path

from zenskar.sandbox import processes
from zenskar.sandbox.postgres import Postgres
from zenskar.sandbox.redis import Redis

TARGETS = {
    "checkout": [("ours over django_pool µs", "<=", 15.0), ("django_pool_checked / ours", ">=", 2.0)],
    "one_thread": [("processor time, ours / django_pool", "<=", 1.0)],
    "forty_threads": [("ours / django_pool", ">=", 1.0)],
    "retried_transaction": [("retried over atomic µs", "<=", 30.0)],
    "constraint_translation": [("translated p50 µs", "<=", 1000.0)],
    "celery_prefork": [("ours / no_pool", ">=", 1.5)],
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dbresilience", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(TARGETS))
    parser.add_argument("--json", type=Path, help="also write the figures there")
    options = parser.parse_args()
    if unknown := sorted(set(options.names) - set(TARGETS)):
        parser.error(f"no such measurement: {', '.join(unknown)}")
    wanted = options.names or list(TARGETS)
    with tempfile.TemporaryDirectory(prefix="benchmark-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        postgres = Postgres(data=folder / "postgres", port=processes.free_port(), durable=False)
        redis = Redis(port=processes.free_port(), log=folder / "redis.log")
        postgres.start()
        redis.start()
        redis.wait_until_ready()
        try:
            os.environ |= {
                "BENCHMARK_PORT": str(postgres.port),
                "BENCHMARK_REDIS": redis.url,
                "DJANGO_SETTINGS_MODULE": "benchmarks.dbresilience.settings",
            }
            found = _measure(wanted, folder)
        finally:
            redis.stop(with_signal=signal.SIGKILL)
            postgres.stop(mode="immediate")
    missed = _print(found)
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    return 1 if missed else 0


def _measure(wanted: list[str], folder: Path) -> dict[str, dict[str, float]]:
    import django

    django.setup()
    from benchmarks.dbresilience import measurements

    found: dict[str, dict[str, float]] = {}
    for name in wanted:
        if name == "celery_prefork":
            found[name] = measurements.celery_prefork(os.environ["BENCHMARK_REDIS"], folder / "worker.log")
        else:
            found[name] = getattr(measurements, name)()
    return found


def _print(found: dict[str, dict[str, float]]) -> int:
    missed = 0
    for name, figures in found.items():
        print(name)
        targets = {key: (sign, bound) for key, sign, bound in TARGETS[name]}
        for key, value in figures.items():
            verdict = ""
            if key in targets:
                sign, bound = targets[key]
                is_met = value <= bound if sign == "<=" else value >= bound
                missed += not is_met
                verdict = f"   target {sign} {bound:g}: {'met' if is_met else 'MISSED'}"
            print(f"  {key:36}{value:12.2f}{verdict}")
    return missed


if __name__ == "__main__":
    sys.exit(main())
