"""Child processes, each in a group of its own, that never outlive the process that started them.

A reaper (``reaper.py``) is told of every group and every temporary folder. Whoever starts processes here stops them
with ``stop``; if it is killed before it can, the reaper does.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import pwd
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

REAPER = Path(__file__).with_name("reaper.py")


class StartFailed(Exception):
    """A process of the sandbox ended, or did not answer, before it was ready."""


def free_port() -> int:
    """A TCP port on 127.0.0.1 that nothing listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(
    command: Sequence[str | Path],
    *,
    log: Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    as_nobody: bool = False,
    stop_signal: int = signal.SIGTERM,
) -> subprocess.Popen[bytes]:
    """Start a command in a session of its own, watched by the reaper.

    Args:
        command: the program and its arguments.
        log: file that its output is appended to.
        env: its whole environment; None is ours.
        cwd: its working folder; None is ours (``/`` with ``as_nobody``).
        as_nobody: as root, run it as the user ``nobody``; no effect for any other user.
        stop_signal: what the reaper sends first.
    """
    identity = unprivileged() if as_nobody else {}
    with log.open("ab") as output, _uninterrupted:
        process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=None if env is None else dict(env),
            cwd=Path("/") if identity else cwd,
            start_new_session=True,
            **identity,
        )
        _reaper.tell(f"watch {process.pid} {int(stop_signal)}")
    return process


def stop(process: subprocess.Popen[bytes], *, with_signal: int = signal.SIGTERM, grace: float = 10.0) -> int:
    """End a process, and then all of its group; SIGKILL after ``grace`` seconds. Returns its exit status.

    The signal goes to the process alone: it knows how to end its own children, whose work it waits for.
    """
    if with_signal:
        process.send_signal(with_signal)
    try:
        process.wait(grace)
    except subprocess.TimeoutExpired:
        pass
    finally:
        # Also when the leader went by itself: children that it left behind are still in its group.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    status = process.wait()
    _reaper.tell(f"forget {process.pid}")
    return status


def stop_together(running: Sequence[subprocess.Popen[bytes]], *, grace: float = 10.0) -> None:
    """SIGTERM to all of them at once, then wait for each; none has more than ``grace`` seconds."""
    for process in running:
        process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + grace
    for process in running:
        stop(process, with_signal=0, grace=max(0.0, deadline - time.monotonic()))


def remove_afterwards(folder: Path) -> None:
    """Have the folder removed when this process is gone, however it goes."""
    _reaper.tell(f"remove {folder}")


def wait_for_port(process: subprocess.Popen[bytes], port: int, *, name: str, log: Path, timeout: float = 30.0) -> None:
    """Return once something accepts connections on 127.0.0.1:port.

    Raises:
        StartFailed: the process ended, or nothing listened within ``timeout`` seconds.
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError as exc:
            if process.poll() is not None or time.monotonic() > deadline:
                raise StartFailed(f"{name} did not start:\n{last_lines(log)}") from exc
            time.sleep(0.02)


def last_lines(log: Path, count: int = 15) -> str:
    """The end of a log file, indented, for an error message."""
    if not log.exists():
        return "  (no log)"
    with log.open("rb") as source:
        source.seek(max(0, log.stat().st_size - 20_000))
        lines = source.read().decode(errors="replace").splitlines()
    return "\n".join(f"  {line}" for line in lines[-count:]) or "  (empty log)"


def unprivileged() -> dict[str, Any]:
    """Arguments for ``subprocess`` that run a command as ``nobody`` when we are root, else none."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def interrupt(exception: BaseException) -> None:
    """Raise from a signal handler; while a process is being started, only once the reaper knows of it.

    Between the fork and that word the process would be nobody's: what is raised there loses it for good.
    """
    _uninterrupted.raise_or_keep(exception)


class _Uninterrupted:
    def __init__(self) -> None:
        self._inside = False
        self._kept: BaseException | None = None

    def __enter__(self) -> None:
        self._inside = True

    def __exit__(self, *_: object) -> None:
        self._inside = False
        if self._kept is not None:
            kept, self._kept = self._kept, None
            raise kept

    def raise_or_keep(self, exception: BaseException) -> None:
        if not self._inside:
            raise exception
        self._kept = exception


class _Reaper:
    """Our end of the pipe to the reaper, which is started with the first word to it, once per process."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0

    def tell(self, line: str) -> None:
        # A forked child must not speak to its parent's reaper: what it starts is its own.
        if self._process is None or self._owner != os.getpid():
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(REAPER)], stdin=subprocess.PIPE, start_new_session=True, cwd="/"
            )
            self._owner = os.getpid()
            atexit.register(self._close)
        pipe = self._process.stdin
        if pipe is not None and not pipe.closed:
            pipe.write(line.encode() + b"\n")
            pipe.flush()

    def _close(self) -> None:
        """Let the reaper do what is left, and wait for it, so that nothing is left once we are gone."""
        if self._process is not None and self._owner == os.getpid():
            self._process.communicate()


_reaper = _Reaper()
_uninterrupted = _Uninterrupted()
