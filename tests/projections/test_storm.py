"""Read models equal what follows from the log, whatever dies."""

from __future__ import annotations

import json
import os
import random
import secrets
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from django.db import connection

from outbox.models import StoredEvent
from projections.models import Build, Failure
from projections.runner import projections_run_once
from projections.verifying import projection_verify
from tests.outbox.database import database_url
from tests.projections.conftest import live
from zenskar.sandbox import processes
from zenskar.sandbox.postgres import Postgres

pytestmark = [pytest.mark.feature("H3", "E4", "H2")]


@pytest.mark.parametrize(
    ("kills", "life", "seconds"),
    # The seconds are a limit only: it ends when so many have died.
    [
        pytest.param(10, 120, 100, marks=pytest.mark.timeout(240), id="ten"),
        pytest.param(100, 400, 600, marks=[pytest.mark.chaos, pytest.mark.timeout(900)], id="hundred"),
    ],
)
def test_it_loses_nothing_and_does_nothing_twice_when_runners_die(
    both: None, tmp_path: Path, kills: int, life: int, seconds: int
) -> None:
    seed = int(os.environ.get("CHAOS_SEED", secrets.randbits(32)))
    print(f"seed {seed} (CHAOS_SEED)")
    # The test's own connection would see its tables made anew.
    connection.close()

    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.projections.storm",
            f"--folder={tmp_path}",
            f"--kills={kills}",
            f"--life={life}",
            f"--seconds={seconds}",
            f"--seed={seed}",
        ],
        env={
            **os.environ,
            "DATABASE_URL": database_url(),
            "LOG_LEVEL": "CRITICAL",
            "PROJECTIONS_LEASE_SECONDS": "1",
        },
        capture_output=True,
        text=True,
        timeout=seconds + 60,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert [path.read_text() for path in tmp_path.glob("crash.*")] == []
    # What is left over is applied by a runner that nobody kills.
    Build.objects.update(lease_until="2000-01-01T00:00Z")
    while projections_run_once():
        pass

    totals, days = projection_verify(name="totals"), projection_verify(name="days")
    events = StoredEvent.objects.count()
    print(f"{done.stdout.strip()} kills, {events} events, {totals.events} applied, {Failure.objects.count()} failures")
    assert int(done.stdout) >= kills
    assert events > 100
    assert (totals.count, days.count) == (0, 0), [str(one) for one in [*totals.differences, *days.differences]]
    assert live("totals").events_processed == totals.events
    assert live("days").events_processed == days.events == events
    assert not Failure.objects.exclude(error_class="unknown_type").exists()


@pytest.mark.chaos
@pytest.mark.timeout(900)
def test_it_stands_a_server_that_goes_away_replays_and_rebuilds(tmp_path: Path) -> None:
    seed = int(os.environ.get("CHAOS_SEED", secrets.randbits(32)))
    print(f"seed {seed} (CHAOS_SEED)")
    dice = random.Random(seed)
    folder = Path(tempfile.mkdtemp(prefix="zenskar-storm-"))
    folder.chmod(0o755)
    server = Postgres(data=folder / "postgres", port=processes.free_port())
    server.start()
    environment = {**os.environ, "DATABASE_URL": server.url, "LOG_LEVEL": "CRITICAL", "PROJECTIONS_LEASE_SECONDS": "1"}

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments], env=environment, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        return done.stdout

    try:
        run("-m", "tests.projections.storm_end", "prepare")
        with subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.projections.storm",
                f"--folder={tmp_path}",
                "--kills=100",
                "--seconds=500",
                f"--seed={seed}",
                "--maintain",
            ],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as storm:
            restarts = 0
            while storm.poll() is None:
                # Its end is waited for; the server goes away in between.
                with suppress(subprocess.TimeoutExpired):
                    storm.wait(dice.uniform(4, 12))
                if storm.poll() is None:
                    server.stop(mode=dice.choice(["immediate", "fast"]))
                    server.start()
                    restarts += 1
            kills = int(storm.stdout.read()) if storm.stdout else 0
        found = json.loads(run("-m", "tests.projections.storm_end", "verify"))
    finally:
        server.stop(mode="immediate")
        shutil.rmtree(folder, ignore_errors=True)

    committed = {int(line) for file in tmp_path.glob("committed.*") for line in file.read_text().split()}
    print(f"{kills} kills, {restarts} restarts, {len(committed)} events, {found['builds']} builds")
    assert [path.read_text() for path in tmp_path.glob("crash.*")] == []
    assert (kills >= 100, restarts >= 3, len(committed) > 500) == (True, True, True)
    assert committed <= set(found["events"])
    assert found["differences"] == []
    assert found["counted_wrong"] == []
