from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from zenskar.sandbox import processes
from zenskar.sandbox.postgres import Postgres, PostgresUnavailable, binaries
from zenskar.sandbox.processes import free_port

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that ``nobody`` can reach, which those of pytest are not."""
    path = Path(tempfile.mkdtemp(prefix="zenskar-test-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def _count(url: str, query: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute(query).fetchone()
    assert row is not None
    return int(row[0])


@pytest.mark.feature("H7")
@pytest.mark.parametrize("source", ["", "wheel"])
def test_it_keeps_its_data_between_starts(folder: Path, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SANDBOX_POSTGRES", source)
    first = Postgres(data=folder / "data", port=free_port())
    first.start()
    with psycopg.connect(first.url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT generate_series(1, 3)")
    first.stop()

    second = Postgres(data=folder / "data", port=free_port())
    second.start()
    kept = _count(second.url, "SELECT count(*) FROM kept")
    with psycopg.connect(second.url) as connection:
        listens = connection.execute("SELECT current_setting('listen_addresses')").fetchone()
    second.stop()

    assert kept == 3
    assert listens == ("127.0.0.1",)


@pytest.mark.feature("H7", "A16")
def test_it_logs_no_values_of_statements_that_failed(folder: Path) -> None:
    server = Postgres(data=folder / "data", port=free_port(), durable=False)
    server.start()
    insert = "INSERT INTO people VALUES ('ann@secret.example')"

    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute("CREATE TABLE people (email text CONSTRAINT people_email_uniq UNIQUE)")
        connection.execute(insert)
        with pytest.raises(psycopg.errors.UniqueViolation):
            connection.execute(insert)
        with pytest.raises(psycopg.errors.UniqueViolation):
            connection.execute("INSERT INTO people VALUES (%s)", ["ann@secret.example"])
    server.stop()

    log = server.log.read_text()
    assert log.count("people_email_uniq") == 2
    assert "secret" not in log


@pytest.mark.feature("H7", "A16")
def test_it_lets_nobody_in_without_the_password(folder: Path) -> None:
    server = Postgres(data=folder / "data", port=free_port(), password="only-ours")
    server.start()

    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(f"postgresql://zenskar@127.0.0.1:{server.port}/zenskar")
    owner = _count(server.url, "SELECT 1")
    server.stop()

    assert owner == 1
    assert [path.name for path in folder.iterdir() if "password" in path.name] == []


@pytest.mark.feature("H7")
def test_it_recovers_from_a_crash(folder: Path) -> None:
    server = Postgres(data=folder / "data", port=free_port())
    server.start()
    with psycopg.connect(server.url) as connection:
        connection.execute("CREATE TABLE committed AS SELECT 1 AS one")

    server.stop(mode="immediate")
    server.start()
    committed = _count(server.url, "SELECT count(*) FROM committed")
    server.stop()

    assert committed == 1


@pytest.mark.feature("H7")
@pytest.mark.parametrize("source", ["machine", "wheel"] if Path("/usr/lib/postgresql").exists() else ["wheel"])
def test_it_runs_for_somebody_who_is_not_root(folder: Path, source: str) -> None:
    program = f"""
import os, pathlib
from zenskar.sandbox.postgres import Postgres
from zenskar.sandbox.processes import free_port
server = Postgres(data=pathlib.Path({str(folder)!r}) / "home" / "data", port=free_port())
server.start()
print(os.stat(server.data).st_uid)
server.stop()
"""
    home = folder / "home"
    home.mkdir(mode=0o777)
    home.chmod(0o777)
    shutil.copytree(ROOT / "zenskar" / "sandbox", folder / "zenskar" / "sandbox", ignore=_only_modules)
    subprocess.run(["chmod", "-R", "a+rX", folder / "zenskar"], check=True)
    library = str(Path(psycopg.__file__).parent.parent)
    environment = {"PATH": os.environ["PATH"], "SANDBOX_POSTGRES": source, "PYTHONPATH": f"{folder}:{library}"}

    answer = subprocess.run(
        [_python_for_everybody(), "-c", program],
        env=environment,
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
        **processes.unprivileged(),
    )

    assert answer.returncode == 0, answer.stderr
    assert int(answer.stdout) == processes.unprivileged().get("user", os.geteuid())


def test_it_makes_a_data_folder_again_when_the_first_try_was_cut_short(folder: Path) -> None:
    half = folder / "data.new"
    half.mkdir()
    (half / "PG_VERSION").write_text("15\n")
    server = Postgres(data=folder / "data", port=free_port())

    server.start()
    databases = _count(server.url, "SELECT count(*) FROM pg_database WHERE datname = 'zenskar'")
    server.stop()

    assert databases == 1
    assert not half.exists()


def test_it_says_why_it_did_not_start(folder: Path) -> None:
    taken = Postgres(data=folder / "one", port=free_port())
    taken.start()

    with pytest.raises(PostgresUnavailable, match=r"Address already in use|could not bind"):
        Postgres(data=folder / "two", port=taken.port).start()

    taken.stop(mode="immediate")


def test_it_refuses_a_source_that_it_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SANDBOX_POSTGRES", "elsewhere")

    with pytest.raises(PostgresUnavailable, match="install PostgreSQL 15"):
        binaries()


def _only_modules(_folder: str, names: list[str]) -> list[str]:
    return [name for name in names if not name.endswith(".py")]


def _python_for_everybody() -> str:
    """This Python when anybody may run it, else the system's of the same version."""
    nobody = processes.unprivileged()
    for candidate in (sys.executable, f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}"):
        try:
            subprocess.run([candidate, "-c", ""], check=True, capture_output=True, cwd="/", **nobody)
        except (OSError, subprocess.CalledProcessError):
            continue
        return candidate
    raise AssertionError("No Python that an unprivileged user may run")
