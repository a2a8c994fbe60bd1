"""Fault injection against read models: writers, runners that are killed, and events that cannot be applied; on demand
operators who replay and rebuild meanwhile, and are killed too, and a server that goes away.

A process of its own (``python -m tests.projections.storm``): it forks writers and runners after Django is set up, so
that one that died is replaced within milliseconds. Which moment a runner dies at is drawn from the seed: before, in and
after its statements.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

ACCOUNTS = 60
PROJECTIONS = ["tests.projections.models_of_tests.Totals", "tests.projections.models_of_tests.Days"]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--kills", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True, help="at most")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--life", type=int, default=400, help="statements that a runner lives to see, at most")
    parser.add_argument("--maintain", action="store_true", help="replay and rebuild meanwhile")
    options = parser.parse_args(arguments)

    import django

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "zenskar.settings")
    django.setup()
    from django.conf import settings

    settings.PROJECTIONS = PROJECTIONS
    return Storm(options).run()


class Storm:
    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.dice = random.Random(options.seed)
        self.writers: dict[int, int] = {}
        self.runners: dict[int, int] = {}
        self.operators: dict[int, int] = {}
        self.maintainers: dict[int, int] = {}
        self.kills = 0

    def run(self) -> int:
        for number in range(2):
            self._start(self.writers, write, number)
        for number in range(2):
            self._start(self.runners, run, number)
        self._start(self.operators, operate, 0)
        if self.options.maintain:
            self._start(self.maintainers, maintain, 0)
        ends = time.monotonic() + self.options.seconds
        while self.kills < self.options.kills and time.monotonic() < ends:
            self._reap()
            time.sleep(0.005)
        for pid in [*self.writers, *self.runners, *self.operators, *self.maintainers]:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        print(self.kills)
        return 0

    def _reap(self) -> None:
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            groups = (
                (self.writers, write),
                (self.runners, run),
                (self.operators, operate),
                (self.maintainers, maintain),
            )
            group, work = next(one for one in groups if pid in one[0])
            if group in (self.runners, self.maintainers) and os.WIFSIGNALED(status):
                self.kills += 1
            self._start(group, work, group.pop(pid))

    def _start(self, group: dict[int, int], work: Callable[[random.Random], None], number: int) -> None:
        dice = random.Random(self.dice.random())
        pid = os.fork()
        if pid:
            group[pid] = number
            return
        os.environ |= {"STORM_FOLDER": str(self.options.folder), "STORM_LIFE": str(self.options.life)}
        try:
            work(dice)
        except BaseException:  # noqa: BLE001 - written down, and the test fails
            import traceback

            (self.options.folder / f"crash.{os.getpid()}.txt").write_text(traceback.format_exc())
        finally:
            os._exit(1)


def write(dice: random.Random) -> None:
    """Publish for ever; one event in twenty cannot be applied, some transactions are rolled back. What was committed is
    written down."""
    from django.db import Error, connection, transaction

    from outbox.events import NewEvent
    from outbox.publishing import publish_many

    class Undone(Exception):
        pass

    ledger = Path(os.environ["STORM_FOLDER"], f"committed.{os.getpid()}").open("a")  # noqa: SIM115
    while True:
        names = sorted(f"a{dice.randrange(ACCOUNTS)}" for _ in range(dice.randrange(1, 6)))
        try:
            with transaction.atomic():
                ids = publish_many(
                    NewEvent(
                        topic="accounts",
                        type="exploded" if dice.random() < 0.05 else "deposited",
                        aggregate_type="account",
                        aggregate_id=name,
                        payload={"amount": dice.randrange(1, 100)},
                    )
                    for name in names
                )
                if dice.random() < 0.1:
                    raise Undone
        except Undone:
            continue
        except Error:
            # The server is away. Whether this was committed nobody knows.
            connection.close()
            time.sleep(0.05)
            continue
        ledger.write("".join(f"{one}\n" for one in ids))
        ledger.flush()
        time.sleep(dice.random() * 0.01)


def operate(dice: random.Random) -> None:
    """Go on without events that cannot be applied, or compute their accounts anew, which fails there again."""
    from django.db import Error, connection

    from projections.models import Failure
    from projections.resolving import AlreadyResolved, failure_resolve

    while True:
        try:
            active = list(Failure.objects.exclude(state="resolved").values_list("pk", flat=True)[:50])
            if active:
                strategy = "rebuild_aggregate" if dice.random() < 0.2 else "skip"
                failure = Failure.objects.get(pk=dice.choice(active))
                if failure.projection != "totals":
                    strategy = "skip"
                failure_resolve(failure_id=failure.pk, strategy=strategy, actor="storm")
        except AlreadyResolved:
            continue
        except Error:
            connection.close()
        time.sleep(dice.random() * 0.02)


def maintain(dice: random.Random) -> None:
    """Replay ranges, rebuild, switch back and forth and reset, until the moment that was drawn; then die."""
    from django.core.management import CommandError, call_command
    from django.db import Error, connection

    from operations.errors import ProblemError
    from operations.long_actions.runner import operations_run_once
    from outbox.models import LogEntry
    from projections.resetting import projection_reset, reset_token

    def replay(name: str) -> None:
        places = LogEntry.objects.order_by("-position").values_list("position", flat=True)[:1_000]
        begin, end = min(places, default=0), max(places, default=0)
        call_command("projection_replay", name, f"--from={begin}", f"--to={end}", "--apply")
        operations_run_once()

    def reset(name: str) -> None:
        projection_reset(name=name, token=reset_token(name=name, actor="storm"), actor="storm")

    def rebuild(*how: str) -> Callable[[str], None]:
        return lambda name: call_command("projection_rebuild", name, *how)

    acts = [replay, rebuild(), rebuild("--rollback"), rebuild("--retire"), rebuild("--cancel"), reset]
    sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115
    with connection.execute_wrapper(_fatal(dice, 600)):
        while True:
            act = dice.choices(acts, [6, 6, 3, 3, 1, 1])[0]
            try:
                act(dice.choice(["totals", "days"]))
            except (CommandError, ProblemError, SystemExit):
                # Not now: nothing to go back to, one is under way, or events that were gone on without in the one build
                # wait for a decision in the other.
                continue
            except Error:
                connection.close()
            time.sleep(dice.random() * 0.05)


def run(dice: random.Random) -> None:
    """Apply events until the moment that was drawn, then die without a word."""
    from django.db import Error, connection

    from projections.runner import projections_run_once

    with connection.execute_wrapper(_fatal(dice, int(os.environ["STORM_LIFE"]))):
        while True:
            try:
                if not projections_run_once(seconds=1):
                    time.sleep(0.01)
            except Error:
                connection.close()
                time.sleep(0.05)


def _fatal(dice: random.Random, longest: int) -> Callable[..., object]:
    """Kills the process before, in or after a statement that is drawn."""
    fatal = dice.randrange(1, longest)
    seen = 0

    def count(execute: Callable[..., object], sql: str, params: object, many: bool, context: object) -> object:
        nonlocal seen
        seen += 1
        if seen == fatal and dice.random() < 0.5:
            os.kill(os.getpid(), signal.SIGKILL)
        result = execute(sql, params, many, context)
        if seen >= fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return count


if __name__ == "__main__":
    sys.exit(main())
