"""What a process says that cannot start, or cannot reach a server: one line, and an exit status."""

from __future__ import annotations

import logging.config
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.db import connection
from pytest_django.plugin import DjangoDbBlocker

from dbresilience.postgresql import connecting
from tests.children import child_run
from zenskar.logs import logging_config
from zenskar.starting import command_line

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


def forked(command: list[str], port: int, blocker: DjangoDbBlocker) -> subprocess.CompletedProcess[str]:
    """What a command says with its database on a port: in a child, which spares each of them a start of its own."""

    def work() -> None:
        connecting.OUTAGE_AFTER = 0.05
        connection.settings_dict |= {"HOST": "127.0.0.1", "PORT": port, "USER": "me", "PASSWORD": "hidden"}
        os.environ.pop("LOG_LEVEL", None)
        # Onto the standard error of the child; the test's own is pytest's.
        logging.config.dictConfig(logging_config(level="WARNING"))
        with blocker.unblock():
            command_line(command)

    return child_run(work)


@pytest.mark.parametrize(
    ("words", "is_started"),
    [
        ("apikey list", True),
        ("conflicts list", False),
        ("import_customers {file}", True),
        ("operations list", False),
        ("outbox_status", False),
        ("projection_status", False),
        ("troubles groups", False),
    ],
)
def test_it_says_in_one_line_that_the_database_is_away(
    words: str, is_started: bool, nowhere: int, tmp_path: Path, django_db_blocker: DjangoDbBlocker
) -> None:
    file = tmp_path / "customers.csv"
    file.write_text("name\nAnn\n")
    command = ["manage.py", *words.format(file=file).split()]

    if is_started:
        answer = ended(*command, DATABASE_URL=f"postgresql://me:hidden@127.0.0.1:{nowhere}/none")
    else:
        answer = forked(command, port=nowhere, blocker=django_db_blocker)

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


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("WEB_CONCURRENCY", "a", "must be a number, not 'a'"),
        ("WEB_CONCURRENCY", "0", "must be between 1 and 1000, not 0"),
        ("PORT", "http", "must be a number, not 'http'"),
        ("DB_POOL_SIZE", "many", "must be a number, not 'many'"),
    ],
)
def test_the_web_process_refuses_what_gunicorn_would_stumble_over(name: str, value: str, reason: str) -> None:
    answer = ended("-m", "zenskar.web", "--bind", "127.0.0.1:0", **{name: value})

    assert answer.returncode == 1
    assert answer.stderr == f"Not started: {name} {reason}.\n"


@pytest.mark.parametrize("command", ["apikey", "conflicts", "operations", "troubles"])
def test_a_command_without_its_verb_shows_its_verbs(command: str) -> None:
    # Each has the same start.
    answer = ended("manage.py", command) if command == "apikey" else child_run(lambda: command_line(["", command]))

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


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_it_ends_quietly_when_nobody_reads_it_any_longer(unbuffered: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)

    ended = subprocess.run(
        [sys.executable, "manage.py", "operations", "kinds"],
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=60,
    )
    os.close(writing)

    assert (ended.returncode, ended.stderr) == (128 + signal.SIGPIPE, "")


def test_a_connection_that_breaks_is_not_taken_for_a_reader_that_left(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(arguments: list[str]) -> None:
        raise BrokenPipeError("the other side hung up")

    def work() -> None:
        monkeypatch.setattr("zenskar.starting.execute_from_command_line", broken)
        command_line(["manage.py", "operations", "list"])

    answer = child_run(work)

    assert answer.returncode == 1
    assert "the other side hung up" in answer.stderr
