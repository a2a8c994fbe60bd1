"""``make run`` as a whole: three starts of everything on one folder, each ended another way."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.sandbox.process_table import descendants, eventually, left_of, mentioning
from zenskar.sandbox import processes

ROOT = Path(__file__).resolve().parent.parent.parent
KEYS = [
    "web",
    "admin_user",
    "admin_password",
    "api_key",
    "authorization",
    "database_url",
    "redis_url",
    "kafka_bootstrap_servers",
    "stripe_api_base",
    "stripe_api_key",
    "stripe_webhook_secret",
]
SERVICES = ("DATABASE_", "REDIS_", "KAFKA_", "STRIPE_", "SECRET_KEY", "ALLOWED_HOSTS", "HTTPS", "DJANGO_", "PORT")
MAIN_JOB = re.compile(
    r"customer → Stripe cus_\w+ in \d+\.\d s → Kafka zenskar\.customers\[\d+\]@\d+ in \d+\.\d s "
    r"→ changed in Stripe → here in \d+\.\d s"
)

pytestmark = [pytest.mark.feature("H7"), pytest.mark.timeout(240)]


def _start(folder: Path) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(SERVICES)}
    environment["PORT"] = str(processes.free_port())
    return subprocess.Popen(
        [sys.executable, "-m", "zenskar.sandbox", "run", "--folder", str(folder)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _until_shown(run: subprocess.Popen[str]) -> str:
    """What it prints until everything runs."""
    assert run.stdout is not None
    assert run.stderr is not None
    lines = []
    for line in run.stdout:
        lines.append(line)
        if line.startswith("Ctrl-C stops all of it"):
            return "".join(lines)
    raise AssertionError("".join(lines) + run.stderr.read())


@contextmanager
def _everything(folder: Path) -> Iterator[tuple[subprocess.Popen[str], str, set[int]]]:
    with _start(folder) as run:
        try:
            shown = _until_shown(run)
            yield run, shown, descendants(run.pid) | {run.pid}
        finally:
            if run.poll() is None:
                run.kill()


def _get(endpoints: dict[str, str], path: str) -> Any:
    request = urllib.request.Request(endpoints["web"] + path, headers={"Authorization": endpoints["authorization"]})
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)


def _stripe_reads(endpoints: dict[str, str]) -> int:
    """How many reads the sandbox of Stripe was asked for, refused ones too."""
    request = urllib.request.Request(
        endpoints["stripe_api_base"] + "/_sandbox/requests",
        headers={"Authorization": f"Bearer {endpoints['stripe_api_key']}"},
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        return sum(line["method"] == "GET" for line in json.load(response)["data"])


def _commands(pids: set[int]) -> dict[int, str]:
    table = subprocess.run(["ps", "-eww", "-o", "pid=,args="], capture_output=True, text=True, check=True).stdout
    lines = (line.strip().split(maxsplit=1) for line in table.splitlines())
    return {int(words[0]): words[-1] for words in lines if int(words[0]) in pids}


def _has_command(pids: set[int], word: str) -> bool:
    return any(word in command for command in _commands(pids).values())


def _first_with(pids: set[int], word: str) -> int:
    return min(pid for pid, command in _commands(pids).items() if word in command)


def test_it_runs_everything_and_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / ".sandbox"
    data = folder / "data-folder"

    # The first start: the main job is shown, everything is said, and a second one is refused.
    with _everything(folder) as (run, shown, family):
        endpoints = json.loads((folder / "endpoints.json").read_text())
        refused = subprocess.run(
            [sys.executable, "-m", "zenskar.sandbox", "run", "--folder", str(folder)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        created = _get(endpoints, "/api/v1/customers/")
        ships = _has_command(family, "kafka_worker --group shipping")
        stripe_reads = _stripe_reads(endpoints)
        run.send_signal(signal.SIGINT)
        stopped = run.wait(60)

    assert MAIN_JOB.search(shown)
    assert list(endpoints) == KEYS
    assert all(endpoints.values())
    assert endpoints["authorization"] == f"Bearer {endpoints['api_key']}"
    assert (folder / "endpoints.json").stat().st_mode & 0o777 == 0o600
    assert all(endpoints[key] in shown for key in ("web", "admin_password", "authorization", "stripe_api_base"))
    assert refused.returncode == 1
    assert f"runs already, as process {run.pid}, at {endpoints['web']}" in refused.stderr
    assert len(created["results"]) == 1
    assert stripe_reads < 8, "Stripe is asked when there is something to see, not all the time"
    assert stopped == 0
    assert ships
    assert len(family) > 10
    assert not left_of(family)
    assert not mentioning(str(folder))

    # The second start keeps data, admin and key; a process that dies takes everything with it and is named.
    with _everything(folder) as (run, shown_again, family):
        again = json.loads((folder / "endpoints.json").read_text())
        with psycopg.connect(again["database_url"]) as connection:
            customers = connection.execute("SELECT count(*) FROM customers_customer").fetchone()
        os.kill(_first_with(family, "manage.py relay"), signal.SIGKILL)
        stopped = run.wait(60)
        assert run.stderr is not None
        said = run.stderr.read()

    kept = ("admin_user", "admin_password", "api_key", "stripe_api_key", "stripe_webhook_secret")
    assert {key: again[key] for key in kept} == {key: endpoints[key] for key in kept}
    assert "customer of the first start, changed → Stripe cus_" in shown_again
    assert customers == (1,)
    assert stopped == 1
    assert "relay ended by itself (exit status -9)" in said
    assert not left_of(family)
    assert not mentioning(str(folder))

    # The third start is killed half-way, as no handler ever sees.
    with _start(folder) as run:
        assert eventually(lambda: _has_command(descendants(run.pid), "celery"), timeout=60)
        family = descendants(run.pid)
        run.kill()
        run.wait(60)

    assert eventually(lambda: not left_of(family))
    assert eventually(lambda: not mentioning(str(folder)))

    # Cleaning up is what ``make clean`` does; the pointer says where a data folder out of reach was put instead.
    if data.exists():
        subprocess.run(["rm", "-rf", data.read_text()], check=True)
