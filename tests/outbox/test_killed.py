from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from django.db import transaction

from outbox.deciding import deliveries_skip
from outbox.models import Delivery, Detour
from outbox.publishing import publish_many
from outbox.relay import relay_until_idle
from outbox.subscriptions import subscriptions_ensure
from tests.outbox.conftest import new, only
from tests.outbox.database import database_url
from tests.outbox.killed import Fragile

pytestmark = [pytest.mark.feature("H1", "H2", "D9"), pytest.mark.django_db(transaction=True)]


def test_an_event_that_kills_its_process_is_found_by_halving_and_stands_alone_as_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, Fragile())
    with transaction.atomic():
        publish_many(
            [
                *[new(f"c{n % 40}") for n in range(300)],
                new("killer", payload={"kills": True}),
                new("killer"),
                *[new(f"c{n}") for n in range(40)],
            ]
        )
    subscriptions_ensure()
    delivered = tmp_path / "delivered.txt"

    endings = _run(delivered)
    dead = Delivery.objects.get()
    held_back = ["killer" in line for line in delivered.read_text().splitlines()]
    deliveries_skip(ids=[dead.pk], actor="user:ann", reason="it kills us")
    after = _run(delivered)

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


def _run(delivered: Path) -> list[int]:
    """Relays until one ends in good order; how they ended."""
    environment = {
        **os.environ,
        "DATABASE_URL": database_url(),
        "DJANGO_SETTINGS_MODULE": "tests.outbox.killed_settings",
    }
    command = [sys.executable, "-m", "tests.outbox.killed", str(delivered)]
    done = subprocess.run(command, env=environment, check=True, timeout=90, capture_output=True, text=True)
    endings: list[int] = json.loads(done.stdout.splitlines()[-1])
    return endings
