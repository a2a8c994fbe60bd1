"""``python -m zenskar.sandbox.stripe``: run the Stripe sandbox until it is told to stop."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from pathlib import Path
from types import FrameType

from zenskar.sandbox.stripe.core import DEFAULT_KEY, DEFAULT_SECRET
from zenskar.sandbox.stripe.errors import SandboxError
from zenskar.sandbox.stripe.server import LOOPBACK, StripeSandboxServer


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        server = StripeSandboxServer(
            port=options.port,
            api_key=options.api_key,
            webhook_url=options.webhook_url,
            webhook_secret=_secrets(options.webhook_secret) or DEFAULT_SECRET,
            state=options.state,
            host=options.host,
            exposed=options.exposed,
            search_lag=options.search_lag,
        )
    except (SandboxError, OSError) as error:
        print(f"stripe sandbox: {error}", file=sys.stderr)
        return 1
    stop = threading.Event()

    def stopped(signum: int, frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, stopped)
    signal.signal(signal.SIGINT, stopped)
    server.start()
    print(f"stripe sandbox: {server.url}", flush=True)
    stop.wait()
    server.stop()
    return 0


def _secrets(given: list[str]) -> list[str]:
    return [secret.strip() for each in given for secret in each.split(",") if secret.strip()]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m zenskar.sandbox.stripe", description=__doc__)
    parser.add_argument("--port", type=int, default=12111, help="0 takes a free one")
    parser.add_argument("--host", default=LOOPBACK)
    parser.add_argument(
        "--exposed", action="store_true", help="allow a host that is no loopback address, as in a container"
    )
    parser.add_argument("--api-key", default=DEFAULT_KEY, help="the secret key it accepts: sk_test_…")
    parser.add_argument("--webhook-url", default=None, help="where every event is posted")
    parser.add_argument(
        "--webhook-secret", action="append", default=[], help="signs webhooks; several by commas, or given repeatedly"
    )
    parser.add_argument("--state", type=Path, default=None, help="file that keeps everything between runs")
    parser.add_argument("--search-lag", type=float, default=60.0, help="seconds until search finds a write")
    return parser


if __name__ == "__main__":
    sys.exit(main())
