"""What a process says that cannot start, or cannot reach a server: one line, and an exit status."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.db import connection

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.feature("F5")


@pytest.fixture
def nowhere() -> Iterator[int]:
    """A port that is taken and never answers: what is bound and does not listen refuses each connection."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


def ended(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize(
    "command",
    [
        ["apikey", "list"],
        ["conflicts", "list"],
        ["import_customers", "{file}"],
        ["operations", "list"],
        ["outbox_status"],
        ["projection_status"],
        ["troubles", "groups"],
    ],
    ids=" ".join,
)
def test_it_says_in_one_line_that_the_database_is_away(command: list[str], nowhere: int, tmp_path: Path) -> None:
    file = tmp_path / "customers.csv"
    file.write_text("name\nAnn\n")
    words = [word.format(file=file) for word in command]

    answer = ended("manage.py", *words, DATABASE_URL=f"postgresql://me:hidden@127.0.0.1:{nowhere}/none")

    assert answer.returncode == os.EX_UNAVAILABLE
    assert answer.stdout == ""
    assert answer.stderr.startswith(f"The database at 127.0.0.1:{nowhere} cannot be reached (Connection refused).")
    assert "make run" in answer.stderr
    assert answer.stderr.count("\n") == 1
    assert "hidden" not in answer.stderr
    assert list(tmp_path.iterdir()) == [file]


def test_it_shows_where_the_database_was_asked_when_the_traceback_is_wanted(nowhere: int) -> None:
    answer = ended("manage.py", "apikey", "list", "--traceback", DATABASE_URL=f"postgresql://127.0.0.1:{nowhere}/none")

    assert answer.returncode == 1
    assert "Traceback" in answer.stderr
    assert "cannot be reached" in answer.stderr


@pytest.mark.parametrize(
    "command",
    [
        ["celery", "-A", "zenskar.celery", "worker"],
        ["celery", "-A", "zenskar.celery", "beat"],
        ["gunicorn", "-c", "zenskar/gunicorn_settings.py", "zenskar.wsgi", "--bind", "127.0.0.1:0"],
    ],
    ids=["worker", "beat", "web"],
)
def test_a_wrong_setting_ends_the_other_processes_with_one_line_too(command: list[str]) -> None:
    answer = ended("-m", *command, OUTBOX_BATCH_SIZE="2.5")

    assert answer.returncode == 1
    assert answer.stderr == "Not started: OUTBOX_BATCH_SIZE must be a whole number, not 2.5.\n"


@pytest.mark.parametrize("command", ["apikey", "conflicts", "operations", "troubles"])
def test_a_command_without_its_verb_shows_its_verbs(command: str) -> None:
    answer = ended("manage.py", command)

    assert (answer.returncode, answer.stderr) == (0, "")
    assert "list" in answer.stdout


@pytest.mark.django_db(transaction=True)
def test_the_answer_of_a_command_stands_alone_unless_the_log_is_wanted() -> None:
    create = ["manage.py", "apikey", "create", "--name", "shop", "--scope", "customers:read"]
    values = connection.settings_dict
    url = f"postgresql://{values['USER']}:{values['PASSWORD']}@{values['HOST']}:{values['PORT']}/{values['NAME']}"
    environment = {"DATABASE_URL": url, "LOG_LEVEL": ""}

    plain = ended(*create, **environment)
    logged = ended(*create, **environment | {"LOG_LEVEL": "INFO"})

    assert (plain.returncode, plain.stderr) == (0, "")
    assert "shown this once" in plain.stdout
    assert "audit" in logged.stderr
