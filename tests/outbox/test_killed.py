from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest
from django.db import transaction

from outbox.deciding import deliveries_skip
from outbox.events import Event
from outbox.models import Delivery, Detour, Lane
from outbox.publishing import publish_many
from outbox.relay import relay_until_idle
from outbox.subscribers import Deadline, Failure, Subscriber
from tests.children import child_run
from tests.outbox.conftest import new, only

pytestmark = [pytest.mark.feature("H1", "H2", "D9"), pytest.mark.django_db(transaction=True)]


class Fragile(Subscriber):
    """Kills its process on some events; what goes through it writes down, one ``aggregate sequence`` a line."""

    name = "fragile"
    ladder = (0.0,)
    call_seconds = 1.0

    def __init__(self, book: Path) -> None:
        self.book = book

    def deliver(self, events: Sequence[Event], deadline: Deadline) -> list[Failure]:
        if any(event.payload.get("kills") for event in events):
            os.kill(os.getpid(), signal.SIGKILL)
        with self.book.open("a") as book:
            book.write("".join(f"{event.aggregate_id} {event.sequence}\n" for event in events))
        return []


def test_an_event_that_kills_its_process_is_found_by_halving_and_stands_alone_as_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    delivered = tmp_path / "delivered.txt"
    only(monkeypatch, Fragile(delivered))
    with transaction.atomic():
        publish_many(
            [
                *[new(f"c{n % 40}") for n in range(300)],
                new("killer", payload={"kills": True}),
                new("killer"),
                *[new(f"c{n}") for n in range(40)],
            ]
        )

    endings = _run()
    dead = Delivery.objects.get()
    held_back = ["killer" in line for line in delivered.read_text().splitlines()]
    deliveries_skip(ids=[dead.pk], actor="user:ann", reason="it kills us")
    after = _run()

    assert set(endings[:-1]) == {-signal.SIGKILL}
    assert [endings[-1]] == after == [0]
    assert len(endings) < 20
    assert (dead.aggregate_id, dead.sequence, dead.state, dead.code) == ("killer", 1, "dead", "worker_died")
    assert not any(held_back)
    lines = delivered.read_text().splitlines()
    assert lines[-1] == "killer 2"
    assert len(set(lines)) == 341
    for name in (f"c{n}" for n in range(40)):
        numbers = [int(line.split()[1]) for line in lines if line.split()[0] == name]
        # Batches that died half-way come again, whole; nothing comes before what it follows.
        assert all(number <= max(numbers[: index + 1], default=0) for index, number in enumerate(numbers))
        assert sorted(set(numbers)) == list(range(1, max(numbers) + 1))
    assert not Detour.objects.exists()
    assert relay_until_idle() == 0


def _run() -> list[int]:
    """Relays until one ends in good order; how they ended."""
    endings: list[int] = []
    while not endings or (endings[-1] != 0 and len(endings) < 40):
        endings.append(child_run(relay_until_idle).returncode)
        # As if the dead one's leases had run out: half a minute each time otherwise.
        Lane.objects.update(lease_until="2000-01-01T00:00Z")
        Detour.objects.filter(due__isnull=False).update(due="2000-01-01T00:00Z")
    return endings
