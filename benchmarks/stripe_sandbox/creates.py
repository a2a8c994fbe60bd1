"""Customers per second that the Stripe sandbox creates: in process, over HTTP, and with a state file.

``python -m benchmarks.stripe_sandbox.creates [--count 500] [--rounds 5]`` prints one JSON object: medians of
interleaved rounds with their spread.
"""

from __future__ import annotations

import argparse
import http.client
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlencode, urlsplit

from zenskar.sandbox.stripe.core import StripeSandbox
from zenskar.sandbox.stripe.server import StripeSandboxServer

HEADERS = {"Authorization": "Bearer sk_test_sandbox", "Content-Type": "application/x-www-form-urlencoded"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        StripeSandboxServer(webhook_secret=[]) as server,
    ):
        memory = StripeSandbox(webhook_secret=[])
        filed = StripeSandbox(webhook_secret=[], state=Path(folder) / "stripe.sqlite3")
        connection = http.client.HTTPConnection(urlsplit(server.url).netloc)
        subjects: dict[str, Callable[[str, bytes], None]] = {
            "in_process": in_process(memory),
            "http": over_http(connection),
            "in_process_with_file": in_process(filed),
        }
        figures: dict[str, list[float]] = {name: [] for name in subjects}
        for round in range(options.rounds):
            for name, create in subjects.items():
                figures[name].append(options.count / timed(create, round, options.count))
        connection.close()
        filed.close()
    print(json.dumps({name: summary(rates) for name, rates in figures.items()}, indent=2))


def in_process(sandbox: StripeSandbox) -> Callable[[str, bytes], None]:
    def create(key: str, body: bytes) -> None:
        response = sandbox.handle("POST", "/v1/customers", {**HEADERS, "Idempotency-Key": key}, body)
        assert response.status == 200

    return create


def over_http(connection: http.client.HTTPConnection) -> Callable[[str, bytes], None]:
    def create(key: str, body: bytes) -> None:
        connection.request("POST", "/v1/customers", body=body, headers={**HEADERS, "Idempotency-Key": key})
        response = connection.getresponse()
        response.read()
        assert response.status == 200

    return create


def timed(create: Callable[[str, bytes], None], round: int, count: int) -> float:
    """Seconds for ``count`` customers."""
    bodies = [
        urlencode({"name": f"Customer {n}", "email": f"c{n}@example.com", "metadata[id]": str(n)}).encode()
        for n in range(count)
    ]
    began = time.perf_counter()
    for number, body in enumerate(bodies):
        create(f"{round}-{number}", body)
    return time.perf_counter() - began


def summary(rates: list[float]) -> dict[str, float]:
    return {
        "customers_per_second": round(statistics.median(rates), 1),
        "lowest": round(min(rates), 1),
        "highest": round(max(rates), 1),
    }


if __name__ == "__main__":
    main()
