"""The plugin that gives each test run its servers, seen from outside."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.sandbox.process_table import eventually, mentioning

ROOT = Path(__file__).resolve().parent.parent.parent
FOREIGN = {
    "DATABASE_URL": "postgresql://somebody@127.0.0.1:1/theirs",
    "REDIS_URL": "redis://127.0.0.1:1/0",
    "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
    "STRIPE_API_KEY": "sk_live_theirs",
}
PROBE = """
import os, pathlib, time
def test_it():
    seen = {name: os.environ.get(name, "") for name in %r}
    pathlib.Path(%r).write_text(repr(seen))
    time.sleep(%d)
"""


def _pytest(folder: Path, *, seconds: int) -> subprocess.Popen[bytes]:
    (folder / "test_probe.py").write_text(PROBE % (list(FOREIGN), str(folder / "seen"), seconds))
    inherited = ("PYTEST_", "KAFKA_", "DATABASE_", "REDIS_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(inherited)}
    options = ["-p", "tests.services", "-p", "no:django", "-p", "no:cacheprovider", "-c", str(folder / "pytest.ini")]
    (folder / "pytest.ini").write_text("[pytest]\n")
    return subprocess.Popen(
        [sys.executable, "-m", "pytest", *options, "-m", "not kafka", str(folder / "test_probe.py")],
        cwd=ROOT,
        env=environment | FOREIGN | {"TMPDIR": str(folder / "servers")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


@pytest.fixture
def folder() -> Path:
    # Not one of pytest's folders: another run closes those to nobody, as whom the server may run.
    folder = Path(tempfile.mkdtemp(prefix="zenskar-inner-"))
    folder.chmod(0o755)
    (folder / "servers").mkdir()
    (folder / "servers").chmod(0o777)
    return folder


@pytest.mark.feature("A15")
def test_a_run_sees_no_server_of_its_caller_and_leaves_nothing(folder: Path) -> None:
    run = _pytest(folder, seconds=0)

    status = run.wait(60)

    seen = (folder / "seen").read_text()
    assert status == 0
    assert not [value for value in FOREIGN.values() if value in seen]
    assert "127.0.0.1" in seen
    assert not mentioning(str(folder / "servers"))
    assert list((folder / "servers").glob("zenskar-test-*")) == []


@pytest.mark.feature("A15")
def test_a_run_that_is_killed_leaves_nothing(folder: Path) -> None:
    run = _pytest(folder, seconds=100)
    assert eventually(lambda: (folder / "seen").exists(), timeout=60)
    servers = mentioning(str(folder / "servers"))

    run.kill()
    run.wait(60)

    assert len(servers) >= 1
    assert eventually(lambda: not mentioning(str(folder / "servers")))
    assert eventually(lambda: list((folder / "servers").glob("zenskar-test-*")) == [])
