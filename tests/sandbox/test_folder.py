from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from zenskar.sandbox import processes
from zenskar.sandbox.folder import AlreadyRunning, SandboxFolder


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.feature("H7")
def test_it_keeps_secrets_for_its_owner_alone(tmp_path: Path) -> None:
    folder = SandboxFolder(tmp_path / ".sandbox")
    folder.open()

    secret = folder.secret("secret-key")
    folder.write_endpoints({"admin_password": "x"})
    folder.close()

    assert len(secret) >= 48
    assert _mode(folder.path / "secret-key") == _mode(folder.endpoints_file) == 0o600
    assert _mode(folder.path) & 0o066 == 0


@pytest.mark.feature("H7")
def test_it_gives_the_same_secrets_at_every_start(tmp_path: Path) -> None:
    folder = SandboxFolder(tmp_path / ".sandbox")
    folder.open()
    first = folder.secret("stripe-api-key", prefix="sk_test_")
    folder.close()

    second = SandboxFolder(folder.path).secret("stripe-api-key", prefix="sk_test_")

    assert first == second
    assert first.startswith("sk_test_")


def test_it_reads_nothing_from_a_broken_endpoints_file(tmp_path: Path) -> None:
    folder = SandboxFolder(tmp_path)
    folder.endpoints_file.write_text('{"web": "http')

    assert folder.read_endpoints() == {}


@pytest.mark.feature("H7")
def test_it_tells_a_second_start_where_the_first_one_runs(tmp_path: Path) -> None:
    program = f"""
import pathlib
from zenskar.sandbox.folder import SandboxFolder
folder = SandboxFolder(pathlib.Path({str(tmp_path / ".sandbox")!r}))
folder.open()
folder.write_endpoints({{"web": "http://127.0.0.1:8123"}})
print("held", flush=True)
input()
"""
    first = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with first:
        assert first.stdout is not None
        assert first.stdout.readline() == "held\n"

        with pytest.raises(
            AlreadyRunning, match=rf"as process {first.pid}, at http://127.0.0.1:8123.*kill {first.pid}"
        ):
            SandboxFolder(tmp_path / ".sandbox").open()

    again = SandboxFolder(tmp_path / ".sandbox")
    again.open()
    again.close()


@pytest.mark.feature("H7")
def test_it_puts_the_database_where_its_user_can_reach_it(tmp_path: Path) -> None:
    closed = tmp_path / "home"
    closed.mkdir(mode=0o700)
    folder = SandboxFolder(closed / ".sandbox")
    folder.open()

    data = folder.postgres_data()
    data.mkdir()
    if os.geteuid() == 0:
        os.chown(data, processes.unprivileged()["user"], -1)
    reachable = subprocess.run(
        ["/bin/sh", "-c", 'cd "$1"', "sh", str(data)],
        cwd="/",
        check=False,
        capture_output=True,
        **processes.unprivileged(),
    )
    again = folder.postgres_data()
    folder.close()
    data.rmdir()

    assert reachable.returncode == 0
    assert again == data
    assert (data.parent == folder.path) == (os.geteuid() != 0)
    if os.geteuid() == 0:
        data.parent.rmdir()


@pytest.mark.feature("H7")
def test_it_gives_a_shell_what_commands_need(tmp_path: Path) -> None:
    folder = SandboxFolder(tmp_path / ".sandbox")
    folder.open()

    folder.write_shell({"SECRET_KEY": "it's $HOME `x`", "WEB": "http://127.0.0.1:8000"})
    folder.close()
    read = subprocess.run(
        ["sh", "-c", f'. {folder.shell_file}; printf "%s|%s" "$SECRET_KEY" "$WEB"'],
        capture_output=True,
        text=True,
        check=True,
    )

    assert read.stdout == "it's $HOME `x`|http://127.0.0.1:8000"
    assert _mode(folder.shell_file) == 0o600


@pytest.mark.feature("H7")
@pytest.mark.parametrize("changed", [False, True])
def test_a_start_knows_the_addresses_of_an_earlier_one_from_those_that_were_set(tmp_path: Path, changed: bool) -> None:
    """A shell that has read ``env`` starts all of it again: the servers of those addresses are gone."""
    folder = SandboxFolder(tmp_path / ".sandbox")
    folder.open()
    folder.write_shell({"DATABASE_URL": "postgres://127.0.0.1:1/x", "SECRET_KEY": "it's secret"})
    folder.close()
    said = subprocess.run(
        ["/bin/sh", "-c", f". {folder.shell_file}; env -0"], capture_output=True, env={"LANG": "C"}, check=True
    )
    environment = dict(line.split("=", 1) for line in said.stdout.decode().split("\0") if line)
    if changed:
        environment["DATABASE_URL"] = "postgres://db.example/mine"
    before = dict(environment)

    SandboxFolder.forget_shell(environment)

    left = {name: environment.get(name) for name in ("LANG", "DATABASE_URL", "SECRET_KEY")}
    assert before["SECRET_KEY"] == "it's secret"
    assert left == (
        {"LANG": "C", "DATABASE_URL": "postgres://db.example/mine", "SECRET_KEY": "it's secret"}
        if changed
        else {"LANG": "C", "DATABASE_URL": None, "SECRET_KEY": None}
    )
