"""``python -m zenskar.sandbox run``: everything on this machine, until Ctrl-C."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from zenskar.sandbox.demo import DemoFailed
from zenskar.sandbox.folder import AlreadyRunning, SandboxFolder
from zenskar.sandbox.postgres import PostgresUnavailable
from zenskar.sandbox.processes import StartFailed
from zenskar.sandbox.redis import RedisUnavailable
from zenskar.sandbox.supervisor import ROOT, ProcessDied, Stopped, Supervisor, stop_on_signals

FAILURES = (AlreadyRunning, DemoFailed, PostgresUnavailable, ProcessDied, RedisUnavailable, StartFailed)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m zenskar.sandbox", description=__doc__)
    parser.add_argument("command", choices=["run"])
    parser.add_argument("--once", action="store_true", help="show the main job, then stop; exit 0 when it worked")
    parser.add_argument("--folder", type=Path, default=ROOT / ".sandbox", help="what is kept between starts")
    options = parser.parse_args(arguments)
    stop_on_signals()
    try:
        Supervisor(SandboxFolder(options.folder.resolve()), once=options.once).run()
        print("It works, and is stopped: make run starts it to stay.", flush=True)
    except Stopped as stopped:
        print(f"Stopped all of it ({stopped}).", flush=True)
        return 0
    except FAILURES as failure:
        print(f"\n{failure}", file=sys.stderr, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
