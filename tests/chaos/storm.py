"""Fault injection against the log: writers that roll back, sleep and die; relays that are killed and suspended.

A process of its own (``python -m tests.chaos.storm``): it forks the writers and relays after Django is set up, so that
one that died is replaced within milliseconds. What happened is in the folder's books; the test judges them.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

AGGREGATES = 40


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--writers", type=int, required=True)
    parser.add_argument("--relays", type=int, required=True)
    parser.add_argument("--suspend", type=float, required=True, help="seconds; longer than a lease")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--subscriber", required=True, help="dotted path")
    parser.add_argument("--broker", type=int, default=0, help="process of a broker that is stopped amid all of it")
    parser.add_argument("--away", type=float, default=0.0, help="seconds that it is stopped")
    parser.add_argument("--flush", type=int, default=0, help="1: Redis is emptied again and again")
    parser.add_argument("--drain", type=float, default=60.0, help="seconds in which all must have arrived afterwards")
    options = parser.parse_args(arguments)

    import django

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "zenskar.settings")
    django.setup()
    from django.conf import settings

    settings.OUTBOX_SUBSCRIBERS = [options.subscriber]
    settings.OUTBOX_RELAY_COMPANIONS = []
    Storm(options).run()
    return 0


class Storm:
    """The processes and what befalls them."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.folder: Path = options.folder
        self.options = options
        self.dice = random.Random(options.seed)
        self.writers: dict[int, int] = {}
        self.relays: dict[int, int] = {}
        self.suspended: dict[int, float] = {}

    def run(self) -> None:
        from outbox.subscriptions import subscriptions_ensure
        from tests.chaos.book import Book

        subscriptions_ensure()
        self._close()
        book = Book(self.folder, "fault")
        for number in range(self.options.writers):
            self._start(self.writers, write, number)
        for number in range(self.options.relays):
            self._start(self.relays, relay, number)
        ends = time.monotonic() + self.options.seconds
        next_fault = time.monotonic() + 1.0
        broker = _Broker(self.options)
        while time.monotonic() < ends:
            self._reap()
            self._wake()
            if time.monotonic() >= next_fault:
                next_fault = time.monotonic() + self.dice.uniform(0.3, 1.2)
                self._strike(book)
                if self.options.flush:
                    _redis_flush()
            broker.look()
            time.sleep(0.02)
        broker.wake()
        for pid in list(self.writers):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        for pid in self.suspended:
            os.kill(pid, signal.SIGCONT)
        self._drain()
        for pid in list(self.relays):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)

    def _strike(self, book: object) -> None:
        awake = [pid for pid in self.relays if pid not in self.suspended]
        if not awake:
            return
        pid = self.dice.choice(awake)
        # One relay at a time is suspended, so that somebody is left to take its lanes over.
        if self.dice.random() < 0.4 and not self.suspended:
            os.kill(pid, signal.SIGSTOP)
            self.suspended[pid] = time.monotonic() + self.options.suspend
            book.write("suspended", pid)  # type: ignore[attr-defined]
        else:
            os.kill(pid, signal.SIGKILL)
            book.write("killed", pid)  # type: ignore[attr-defined]

    def _wake(self) -> None:
        for pid, moment in list(self.suspended.items()):
            if time.monotonic() >= moment:
                os.kill(pid, signal.SIGCONT)
                del self.suspended[pid]

    def _reap(self) -> None:
        while True:
            try:
                pid, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self.suspended.pop(pid, None)
            if (number := self.writers.pop(pid, None)) is not None:
                self._start(self.writers, write, number)
            if (number := self.relays.pop(pid, None)) is not None:
                self._start(self.relays, relay, number)

    def _start(self, group: dict[int, int], work: Callable[[Path, random.Random], None], number: int) -> None:
        dice = random.Random(self.dice.random())
        pid = os.fork()
        if pid:
            group[pid] = number
            return
        try:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            work(self.folder, dice)
        except BaseException:  # noqa: BLE001 - written down, and the test fails
            import traceback

            (self.folder / f"crash.{os.getpid()}.txt").write_text(traceback.format_exc())
        finally:
            os._exit(1)

    def _drain(self) -> None:
        """Wait until the relays that live have brought everything to its end."""
        from django.db import connection

        ends = time.monotonic() + self.options.drain
        while time.monotonic() < ends:
            self._reap()
            with connection.cursor() as cursor:
                cursor.execute(
                    "SELECT NOT EXISTS (SELECT FROM outbox_unsequenced) AND NOT EXISTS (SELECT FROM outbox_detour) AND"
                    " NOT EXISTS (SELECT FROM outbox_lane n JOIN outbox_subscription s ON s.name = n.subscription_id"
                    " AND s.active JOIN outbox_log l ON l.lane = n.lane AND l.position > n.cursor)"
                )
                if cursor.fetchone()[0]:
                    return
            time.sleep(0.1)
        raise SystemExit(f"not drained within {self.options.drain:g} s")

    @staticmethod
    def _close() -> None:
        from django.db import connections

        connections.close_all()


class _Broker:
    """A broker that answers nobody for a while, in the middle of the storm."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._pid: int = options.broker
        self._stops = time.monotonic() + min(5.0, options.seconds / 4)
        self._returns = self._stops + options.away
        self._stopped = False

    def look(self) -> None:
        """Stop it, or let it go on, when its time has come."""
        now = time.monotonic()
        if self._pid and not self._stopped and self._stops <= now < self._returns:
            os.kill(self._pid, signal.SIGSTOP)
            self._stopped = True
        elif self._stopped and now >= self._returns:
            self.wake()

    def wake(self) -> None:
        if self._stopped:
            os.kill(self._pid, signal.SIGCONT)
            self._stopped = False


def _redis_flush() -> None:
    """Wake-ups and whatever else is kept there are gone: nothing may depend on it."""
    from django.conf import settings
    from redis import Redis

    with Redis.from_url(settings.REDIS_URL) as client:
        client.flushdb()


def write(folder: Path, dice: random.Random) -> None:
    """Publish for ever: intent, then commit, then acknowledgement; sometimes none of it."""
    from django.db import connection, transaction

    from outbox.events import NewEvent
    from outbox.publishing import publish_many
    from tests.chaos.book import Book

    intents, acks, undone = Book(folder, "intent"), Book(folder, "ack"), Book(folder, "undone")

    class Undone(Exception):
        pass

    while True:
        names = sorted(f"a{dice.randrange(AGGREGATES)}" for _ in range(dice.randrange(1, 5)))
        marks = [(str(uuid.UUID(int=dice.getrandbits(128))), name) for name in names]
        try:
            with transaction.atomic():
                publish_many(
                    NewEvent(topic="chaos", type="t", aggregate_type="a", aggregate_id=name, payload={"mark": mark})
                    for mark, name in marks
                )
                for mark, name in marks:
                    intents.write(mark, name)
                fate = dice.random()
                if fate < 0.15:
                    with connection.cursor() as cursor:
                        cursor.execute("SELECT pg_sleep(%s)", [dice.random() * 0.15])
                elif fate < 0.30:
                    raise Undone
                elif fate < 0.32:
                    os.kill(os.getpid(), signal.SIGKILL)
        except Undone:
            for mark, _ in marks:
                undone.write(mark)
            continue
        for mark, name in marks:
            acks.write(mark, name)
        if dice.random() < 0.01:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(dice.random() * 0.02)


def relay(_folder: Path, _dice: random.Random) -> None:
    """What ``manage.py relay`` does."""
    from outbox.relaying import Relay

    Relay().start()
    while True:
        time.sleep(1)


if __name__ == "__main__":
    sys.exit(main())
