"""Processes that publish and relay, each killed by SIGKILL one step further than the one before.

``python -m tests.outbox.stepwise FOLDER [STEP …]``: each child, one a step, writes business rows, publishes
their events and relays them, to a subscriber outside of transactions and to a transactional one, until it has come to
that step: an exchange with the database, or a call of a subscriber. Then it dies, and its parent, as another relay,
brings what is left. Without steps: all of them, until a child has none left to die at. What each child died at, and
what is wrong afterwards, is printed as JSON.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from outbox.errors import ErrorClass
from outbox.events import Event
from outbox.subscribers import Deadline, Failure, Subscriber

MOST = 400
NAMES = ("plain", "plain", "skips", "later", "skips", "plain", "later", "skips")
"""Aggregates of the events of one run. The second of ``skips`` is refused for good, the first of ``later`` once."""


class Steps:
    """Counts steps, and kills the process before the one that it was told."""

    def __init__(self, last: int, place: Path) -> None:
        self._left = last
        self._place = place

    def step(self, what: str) -> None:
        self._left -= 1
        if not self._left:
            self._place.write_text(what)
            os.kill(os.getpid(), signal.SIGKILL)


class Outside(Subscriber):
    """Appends what it is given to a file, one ``run aggregate sequence`` a line, which outlives whoever writes it."""

    name = "outside"
    ladder = (0.0, 0.0, 0.0, 0.0)
    call_seconds = 1.0
    dead_policy = "skip"
    folder = Path()
    steps: Steps | None = None

    def deliver(self, events: Sequence[Event], deadline: Deadline) -> list[Failure]:
        if self.steps is not None:
            self.steps.step("before the call")
        failures: dict[tuple[str, str], Failure] = {}
        for event in events:
            if event.aggregate in failures:
                continue
            if failure := self._refused(event):
                failures[event.aggregate] = failure
                continue
            with (self.folder / "delivered").open("a") as file:
                file.write(f"{event.aggregate_id} {event.sequence}\n")
        if self.steps is not None:
            self.steps.step("after the call")
        return list(failures.values())

    def _refused(self, event: Event) -> Failure | None:
        name = event.aggregate_id.partition("-")[0]
        if (name, event.sequence) == ("skips", 2):
            return Failure(event, ErrorClass.PERMANENT, "refused", "no")
        tried = self.folder / f"tried-{event.id}"
        if (name, event.sequence) == ("later", 1) and not tried.exists():
            tried.touch()
            return Failure(event, ErrorClass.RETRYABLE, "refused", "not yet")
        return None


def main() -> None:
    import django

    django.setup()
    from django.db import connection

    from outbox.subscribers import subscribers

    outside, _ = subscribers()
    folder = Path(sys.argv[1])
    Outside.folder = folder
    wanted = [int(step) for step in sys.argv[2:]]
    places: dict[int, str] = {}
    wrong: list[str] = []
    for step in wanted or range(1, MOST):
        place = folder / f"place-{step}"
        connection.close()
        pid = os.fork()
        if not pid:
            _live(step, Steps(step, place), outside)
            os._exit(0)
        ending = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if ending not in (0, -signal.SIGKILL):
            wrong.append(f"{step}: ended with {ending}")
        _finish(folder)
        wrong += [f"{step}: {text}" for text in _wrong(step, folder)]
        if ending == 0 and not wanted:
            break
        if ending:
            places[step] = place.read_text()
    print(json.dumps({"places": places, "wrong": wrong}))


def _live(run: int, steps: Steps, outside: Any) -> None:
    """What a process does in its whole life."""
    from django.db import connection, transaction

    from outbox.publishing import publish_many
    from outbox.relay import relay_until_idle
    from tests.outbox.conftest import new

    connection.ensure_connection()
    assert connection.connection is not None
    (outside.folder / "session").write_text(str(connection.connection.info.backend_pid))
    _count_exchanges(steps)
    outside.steps = steps
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO business (run) VALUES (%s)", [run])
        publish_many([new(f"{name}-{run}") for name in NAMES])
    relay_until_idle()


def _count_exchanges(steps: Steps) -> None:
    from dbresilience.postgresql.connection import Connection

    wait: Callable[..., Any] = Connection.wait

    def counted(self: Connection, gen: Any, *arguments: Any, **options: Any) -> Any:
        if threading.current_thread() is threading.main_thread():
            sent = self.trail[-1] if self.trail and gen.__name__ == "_execute_gen" else ""
            said = " ".join(str(sent).split()[:6])
            steps.step(f"{gen.__name__} {said}".strip())
        return wait(self, gen, *arguments, **options)

    Connection.wait = counted  # type: ignore[method-assign]


def _finish(folder: Path) -> None:
    """Be the relay that comes after: as if the dead one's leases had run out, half a minute each time otherwise."""
    from django.db import connection

    from outbox.models import Detour, Lane
    from outbox.relay import relay_until_idle

    with connection.cursor() as cursor:
        # The server may not have noticed yet that the dead one is gone, and keep its locks.
        cursor.execute("SELECT pg_terminate_backend(%s, 10000)", [int((folder / "session").read_text())])
    Lane.objects.update(lease_until="2000-01-01T00:00Z")
    for _ in range(10):
        Detour.objects.filter(due__isnull=False).update(due="2000-01-01T00:00Z")
        relay_until_idle()
        if not Detour.objects.exists():
            break


def _wrong(run: int, folder: Path) -> Iterator[str]:
    """What must not be: rows without events, events that are lost, out of order or stuck, effects twice."""
    from django.db import connection

    from outbox.models import Delivery, Detour
    from outbox.verifying import outbox_verify

    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM business WHERE run = %s", [run])
        written = cursor.fetchone()[0]
        cursor.execute(
            "SELECT aggregate_id, array_agg(sequence ORDER BY nth) FROM ledger WHERE aggregate_id LIKE %s GROUP BY 1",
            [f"%-{run}"],
        )
        inside = dict(cursor.fetchall())
    outside: dict[str, list[int]] = {}
    for line in _lines(folder):
        name, number = line.split()
        if name.endswith(f"-{run}"):
            outside.setdefault(name, []).append(int(number))
    expected = {f"{name}-{run}": list(range(1, NAMES.count(name) + 1)) for name in NAMES} if written else {}
    if inside != expected:
        yield f"effects inside: {inside}"
    dead = {f"skips-{run}": {2}}
    for name, numbers in expected.items():
        got = outside.pop(name, [])
        if sorted(set(got)) != sorted(set(numbers) - dead.get(name, set())):
            yield f"{name} arrived as {got}"
        # What comes again comes in order, and the newest is the last.
        if any(later > max(got[: at + 1]) + 1 + len(dead.get(name, ())) for at, later in enumerate(got[1:])) or (
            got and got[-1] != numbers[-1]
        ):
            yield f"{name} out of order: {got}"
    if outside:
        yield f"never written, and arrived: {outside}"
    states = {(one.aggregate_id, one.state) for one in Delivery.objects.filter(aggregate_id__endswith=f"-{run}")}
    if states - {(f"later-{run}", "resolved")} != ({(f"skips-{run}", "dead")} if written else set()):
        yield f"deliveries: {states}"
    if Detour.objects.exists():
        yield "somebody waits still"
    yield from (f"verify: {one.check} {one.count}" for one in outbox_verify(apply=False, actor="test") if one.count)


def _lines(folder: Path) -> list[str]:
    path = folder / "delivered"
    return path.read_text().splitlines() if path.exists() else []


if __name__ == "__main__":
    # Under the name by which the settings know it, and not as __main__ a second time.
    from tests.outbox.stepwise import main as run

    run()
