"""Makes ``.venv`` and keeps it on the pinned requirements, with nothing but a Python's standard library.

Run by whatever ``python3`` is there (``make`` does it), so it must stay readable for old ones. It takes a Python of
3.11 or later, uses ``uv`` if that is there, else ``venv`` with the pip of that Python, so that Debian's python3 without
ensurepip does too. Installed again only when a requirements file changed.

    python3 zenskar/sandbox/bootstrap.py install [--dev] | compile | clean
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

MINIMUM = (3, 11)
NAMES = ("python3", "python3.13", "python3.12", "python3.11", "python3.14")
ROOT = Path(__file__).resolve().parent.parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / "requirements.json"
RUN = ("requirements.txt", "requirements-sandbox.txt")
DEV = (*RUN, "requirements-dev.txt")
BENCH = "requirements-bench.txt"
OTEL = "requirements-otel.txt"
PIP = ("--no-input", "--disable-pip-version-check", "--progress-bar", "off")
EVERY = 10.0  # seconds between two lines of progress, where they do not replace each other


class Trouble(Exception):
    """The environment cannot be made; the message is the one line that a person needs."""


def main(arguments: list[str]) -> int:
    command, flags = (arguments or [""])[0], set(arguments[1:])
    try:
        if command == "install":
            install(DEV if "--dev" in flags else RUN)
        elif command == "compile":
            compile_requirements()
        elif command == "clean":
            clean()
        else:
            raise Trouble("usage: bootstrap.py install [--dev] | compile | clean")
    except Trouble as trouble:
        print(trouble, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped; start again to go on.", file=sys.stderr)
        return 130
    return 0


def install(files: tuple[str, ...]) -> None:
    """Bring ``.venv`` to the given requirements files, and to those that it already had."""
    with Path(__file__).open() as lock:
        # Two makes at once: the second waits here, and then finds everything in place.
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            print("         waiting for another make that is installing here …", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        installed = _stamp()
        wanted = {name: _digest(name) for name in files}
        if wanted.items() <= installed.items():
            return
        begun = time.monotonic()
        if not _works(VENV / "bin" / "python"):
            _make_venv()
            _step(begun, "virtual environment in .venv (Python {})".format(_version(str(VENV / "bin" / "python"))))
        names = [name for name in DEV if name in wanted or name in installed]
        begun = time.monotonic()
        print(f"         installing {' + '.join(names)} …", flush=True)
        _install(names)
        STAMP.write_text(json.dumps({name: _digest(name) for name in names}, indent=1))
        _step(begun, "pinned packages, checked by their hashes")


def clean() -> None:
    """Remove ``.sandbox`` and the data folder that it points to.

    Raises:
        Trouble: ``make run`` is using them.
    """
    folder = ROOT / ".sandbox"
    if not folder.exists():
        return
    lock = folder / "lock"
    if lock.exists():
        with lock.open() as held:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as exc:
                raise Trouble("make run is still running here: stop it first (Ctrl-C)") from exc
    elsewhere = folder / "data-folder"
    if elsewhere.exists():
        shutil.rmtree(elsewhere.read_text().strip(), ignore_errors=True)
    shutil.rmtree(folder)
    print("Forgot .sandbox: data, admin, API key")


def compile_requirements() -> None:
    """Compile each ``requirements*.in`` into its pinned file with hashes, for every Python and platform at once."""
    uv = _uv()
    if uv is None:
        raise Trouble("Compiling the requirements needs uv: https://docs.astral.sh/uv/")
    # Each after those that hold its versions.
    for name in (*RUN, OTEL, DEV[-1], BENCH):
        command = [uv, "pip", "compile", "-q", "--no-header", "--generate-hashes", "--universal", "--upgrade"]
        command += ["--python-version", "3.11", "--no-emit-find-links", "--no-emit-index-url"]
        _run([*command, name.replace(".txt", ".in"), "-o", name], "uv could not compile " + name)


def _make_venv() -> None:
    shutil.rmtree(VENV, ignore_errors=True)
    python, uv = _python(), _uv()
    if uv is not None:
        # uv may bring a Python of its own where the machine has none that is new enough.
        wanted = python or ">=3.11"
        _run([uv, "venv", "--quiet", "--python", wanted, str(VENV)], "uv could not make .venv")
        return
    if python is None:
        raise Trouble("Python 3.11 or later is needed; this machine's python3 is " + _version(sys.executable))
    if _has_pip(python):
        # Its own pip can install into .venv, so that none is needed inside, which takes seconds to get there.
        _run([python, "-m", "venv", "--without-pip", str(VENV)], "python3 -m venv failed")
    elif _succeeds(python, "import ensurepip"):
        _run([python, "-m", "venv", str(VENV)], "python3 -m venv failed")
    else:
        raise Trouble(
            "This python3 comes without venv and pip. Debian and Ubuntu: apt-get install python3-venv "
            "(or install uv); then the same command again"
        )


def _install(names: list[str]) -> None:
    python, files = str(VENV / "bin" / "python"), [word for name in names for word in ("-r", name)]
    uv = _uv()
    if uv is not None:
        command = [uv, "pip", "install", "--python", python, "--compile-bytecode"]
    elif _has_pip(python):
        command = [python, "-m", "pip", "install", *PIP]
    else:
        outer = _python()
        if outer is None or not _has_pip(outer):
            raise Trouble(".venv has no pip; remove it, and run the same command again")
        command = [outer, "-m", "pip", "--python", python, "install", *PIP]
    _run([*command, "--require-hashes", "--no-deps", *files], "the pinned packages could not be installed")


def _python() -> str | None:
    """The first Python of 3.11 or later: the one that runs this, else one of the usual names."""
    if sys.version_info >= MINIMUM:
        # Of a virtual environment's Python the one that it was made from.
        return str(getattr(sys, "_base_executable", sys.executable))
    for name in NAMES:
        path = shutil.which(name)
        if path and _works(path) and tuple(map(int, _version(path).split("."))) >= MINIMUM:
            return path
    return None


def _uv() -> str | None:
    return shutil.which("uv")


def _works(python: str | Path) -> bool:
    return Path(python).exists() and _version(str(python)) != ""


def _version(python: str) -> str:
    answer = _ask(python, "import sys; print('%d.%d' % sys.version_info[:2])")
    return answer.stdout.strip() if answer.returncode == 0 else ""


def _has_pip(python: str) -> bool:
    """Whether this Python has a pip that can install into another environment (22.3 or later)."""
    return _succeeds(python, "import pip; assert tuple(map(int, pip.__version__.split('.')[:2])) >= (22, 3)")


def _succeeds(python: str, code: str) -> bool:
    # Debian's venv module is there without ensurepip's wheels; importing ensurepip is what tells.
    return _ask(python, code).returncode == 0


def _ask(python: str, code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)


def _run(command: list[str], failure: str) -> None:
    # Byte code is compiled at installation whatever the environment says: each later start is seconds faster.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    try:
        said = _watched(process)
        status = process.wait()
    except KeyboardInterrupt:
        # On a terminal it heard of Ctrl-C as well; elsewhere it must not go on alone.
        process.kill()
        process.wait()
        raise
    if status != 0:
        raise Trouble("{}:\n{}".format(failure, "".join(said).strip()[-3000:]))


def _watched(process: subprocess.Popen[str]) -> list[str]:
    """All lines that the process prints until it ends, while the last one is shown with the seconds so far."""
    said: list[str] = []
    reader = threading.Thread(target=lambda: said.extend(process.stdout or ()), daemon=True)
    begun, terminal = time.monotonic(), sys.stdout.isatty()
    reader.start()
    while True:
        reader.join(0.5 if terminal else EVERY)
        if not reader.is_alive():
            break
        doing = " ".join(said[-1].split()) if said else "…"
        line = f"{time.monotonic() - begun:6.0f} s {doing}"
        if terminal:
            print("\r" + line[: shutil.get_terminal_size().columns - 1] + "\033[K", end="", flush=True)
        else:
            print(line[:120], flush=True)
    if terminal:
        print("\r\033[K", end="", flush=True)
    return said


def _stamp() -> dict[str, str]:
    try:
        stamp: dict[str, str] = json.loads(STAMP.read_text())
    except (OSError, ValueError):
        return {}
    return stamp if (VENV / "bin" / "python").exists() else {}


def _digest(name: str) -> str:
    return hashlib.sha256((ROOT / name).read_bytes()).hexdigest()


def _step(begun: float, what: str) -> None:
    print(f"{time.monotonic() - begun:6.1f} s {what}", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
