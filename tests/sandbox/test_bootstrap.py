from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

SCRIPT = Path("zenskar/sandbox/bootstrap.py")
ROOT = Path(__file__).resolve().parent.parent.parent

pytestmark = pytest.mark.feature("H7")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with requirements files that ask for nothing, so that no network is needed."""
    (tmp_path / SCRIPT).parent.mkdir(parents=True)
    shutil.copy(ROOT / SCRIPT, tmp_path / SCRIPT)
    for name in ("requirements.txt", "requirements-sandbox.txt", "requirements-dev.txt"):
        (tmp_path / name).write_text("# nothing\n")
    return tmp_path


def _run(checkout: Path, *arguments: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    # A PATH without uv: what it would do alone is tested by whoever has it.
    environment = {**os.environ, "PATH": path or "/usr/bin:/bin"}
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments],
        cwd=checkout,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def _stamp(checkout: Path) -> dict[str, str]:
    stamp: dict[str, str] = json.loads((checkout / ".venv" / "requirements.json").read_text())
    return stamp


def test_it_makes_the_environment_once_and_again_only_what_changed(checkout: Path) -> None:
    first = _run(checkout, "install")
    made = (checkout / ".venv" / "pyvenv.cfg").stat().st_mtime_ns
    second = _run(checkout, "install")
    (checkout / "requirements-sandbox.txt").write_text("# still nothing\n")
    third = _run(checkout, "install", "--dev")

    assert (first.returncode, second.returncode, third.returncode) == (0, 0, 0), first.stderr + third.stderr
    assert "virtual environment in .venv" in first.stdout
    assert "requirements.txt + requirements-sandbox.txt …" in first.stdout
    assert second.stdout == ""
    assert "virtual environment" not in third.stdout
    assert "requirements-dev.txt …" in third.stdout
    assert sorted(_stamp(checkout)) == ["requirements-dev.txt", "requirements-sandbox.txt", "requirements.txt"]
    assert (checkout / ".venv" / "pyvenv.cfg").stat().st_mtime_ns == made


def test_it_refuses_a_package_without_a_hash_and_shows_why(checkout: Path) -> None:
    _run(checkout, "install")
    with zipfile.ZipFile(checkout / "some_package-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(
            "some_package-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: some-package\nVersion: 1.0\n"
        )
        wheel.writestr(
            "some_package-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr("some_package-1.0.dist-info/RECORD", "")
    (checkout / "requirements.txt").write_text(f"--no-index\n--find-links {checkout}\nsome-package==1.0\n")

    answer = _run(checkout, "install")

    assert answer.returncode == 1
    assert "the pinned packages could not be installed" in answer.stderr
    assert "Hashes are required" in answer.stderr
    assert "requirements.txt" in _stamp(checkout), "what was installed before stays known"


def test_it_names_the_package_to_install_where_python_has_neither_venv_nor_pip(checkout: Path, tmp_path: Path) -> None:
    # A python3 that stands for Debian's without python3-venv and python3-pip: those two cannot be imported.
    bare = tmp_path / "bin"
    bare.mkdir()
    (bare / "sitecustomize.py").write_text("import sys\nsys.modules['ensurepip'] = None\nsys.modules['pip'] = None\n")

    answer = subprocess.run(
        [sys.executable, str(SCRIPT), "install"],
        cwd=checkout,
        env={"PATH": "/nonexistent", "PYTHONPATH": str(bare), "PYTHONNOUSERSITE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert answer.returncode == 1
    assert "apt-get install python3-venv" in answer.stderr
    assert answer.stderr.count("\n") == 1


def test_it_needs_no_ensurepip_where_python_has_pip(checkout: Path, tmp_path: Path) -> None:
    base = Path(sys.base_prefix) / "bin" / "python3"
    bare = tmp_path / "bin"
    bare.mkdir()
    (bare / "sitecustomize.py").write_text("import sys\nsys.modules['ensurepip'] = None\n")

    answer = subprocess.run(
        [base, str(SCRIPT), "install"],
        cwd=checkout,
        env={"PATH": "/nonexistent", "PYTHONPATH": str(bare), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert answer.returncode == 0, answer.stderr
    assert not list((checkout / ".venv").glob("lib/python*/site-packages/pip"))
    assert sorted(_stamp(checkout)) == ["requirements-sandbox.txt", "requirements.txt"]


def test_clean_forgets_the_sandbox_and_the_data_that_lies_elsewhere(checkout: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    folder = checkout / ".sandbox"
    folder.mkdir()
    (folder / "data-folder").write_text(str(elsewhere))

    answer = _run(checkout, "clean")

    assert answer.returncode == 0
    assert not folder.exists()
    assert not elsewhere.exists()


def test_clean_leaves_a_running_sandbox_alone(checkout: Path) -> None:
    folder = checkout / ".sandbox"
    folder.mkdir()
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)

        answer = _run(checkout, "clean")

    assert answer.returncode == 1
    assert "still running" in answer.stderr
    assert folder.exists()


@contextmanager
def _installing(checkout: Path, every: str = "0.2") -> Iterator[subprocess.Popen[str]]:
    """An installation by a ``uv`` that makes an environment, says what it does, and then takes for ever."""
    tools = checkout / "tools"
    tools.mkdir(exist_ok=True)
    uv = tools / "uv"
    uv.write_text(
        f'#!/bin/sh\ncase "$1" in venv) exec {sys.executable} -m venv --without-pip .venv;; esac\n'
        "echo 'Downloading   a-large-package (5 MiB)'\nexec sleep 60\n"
    )
    uv.chmod(0o755)
    script = checkout / SCRIPT
    script.write_text(script.read_text().replace("EVERY = 10.0", f"EVERY = {every}"))
    with subprocess.Popen(
        [sys.executable, str(SCRIPT), "install"],
        cwd=checkout,
        env={**os.environ, "PATH": f"{tools}:/usr/bin:/bin"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def _line_with(process: subprocess.Popen[str], text: str) -> str:
    assert process.stdout is not None
    return next(line for line in process.stdout if text in line)


def test_it_says_every_few_seconds_what_is_being_installed(checkout: Path) -> None:
    with _installing(checkout) as process:
        line = _line_with(process, "Downloading")
        process.send_signal(signal.SIGINT)
        process.wait(60)

    assert line.strip().endswith("s Downloading a-large-package (5 MiB)")


def test_ctrl_c_while_it_installs_is_one_line_and_the_next_start_goes_on(checkout: Path) -> None:
    with _installing(checkout) as process:
        _line_with(process, "Downloading")
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)

    again = _run(checkout, "install")

    assert process.returncode == 130
    assert errors.strip() == "Stopped; start again to go on."
    assert again.returncode == 0, again.stderr


def test_a_second_start_says_that_it_waits_for_the_first_and_can_be_stopped(checkout: Path) -> None:
    with _installing(checkout) as first:
        _line_with(first, "Downloading")
        with _installing(checkout) as second:
            waiting = _line_with(second, "waiting")
            second.send_signal(signal.SIGINT)
            _, errors = second.communicate(timeout=60)
        first.send_signal(signal.SIGINT)
        first.wait(60)

    assert "another make" in waiting
    assert second.returncode == 130
    assert errors.strip() == "Stopped; start again to go on."
