"""A process that dies between any two of its steps loses nothing, and leaves nothing half-done."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.db import connection

from tests.outbox.database import database_url

pytestmark = [pytest.mark.feature("H1", "D6", "D9", "A9"), pytest.mark.django_db(transaction=True)]

USUAL = 100
"""Steps that a life takes, at least; more where the clock has it settle once more."""


@pytest.fixture
def tables(transactional_db: None) -> Iterator[None]:
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE business (run int PRIMARY KEY)")
        cursor.execute(
            "CREATE TABLE ledger (event_id bigint UNIQUE DEFERRABLE INITIALLY DEFERRED, aggregate_id text,"
            " sequence bigint, amount int CHECK (amount > 0), nth bigint GENERATED ALWAYS AS IDENTITY)"
        )
    yield
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE business, ledger")


@pytest.mark.usefixtures("tables")
def test_a_death_at_any_of_some_steps_loses_nothing(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    steps = sorted(random.Random(seed).sample(range(1, USUAL), 10))

    died, wrong = lived(tmp_path, steps)

    assert wrong == []
    assert list(died) == steps


@pytest.mark.chaos
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("tables")
def test_a_death_at_each_step_loses_nothing(tmp_path: Path) -> None:
    died, wrong = lived(tmp_path, [])

    assert wrong == []
    assert list(died) == list(range(1, len(died) + 1))
    assert len(died) >= USUAL
    places = " ".join(died.values())
    for place in (
        "WITH new AS MATERIALIZED",
        "WITH taken AS",
        "UPDATE outbox_lane AS l SET cursor",
        "WITH given AS MATERIALIZED",
        "WITH candidates AS",
        "DELETE FROM outbox_detour",
        "RELEASE SAVEPOINT",
        "_commit_gen",
        "before the call",
        "after the call",
    ):
        assert place in places


def lived(folder: Path, steps: list[int]) -> tuple[dict[int, str], list[str]]:
    """Where those who lived until these steps died, and what was wrong afterwards."""
    environment = {
        **os.environ,
        "DATABASE_URL": database_url(),
        "DJANGO_SETTINGS_MODULE": "tests.outbox.stepwise_settings",
    }
    command = [sys.executable, "-m", "tests.outbox.stepwise", str(folder), *map(str, steps)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=590)
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout.splitlines()[-1])
    return {int(step): place for step, place in found["places"].items()}, found["wrong"]
