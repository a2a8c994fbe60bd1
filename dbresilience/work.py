"""What the process is doing for whom: the request, task or command at work in this thread."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import PurePath
from typing import Any, Final

from django.core.signals import request_finished, request_started

try:
    from celery import signals as celery_signals
except ImportError:  # Celery is not needed.
    celery_signals = None  # type: ignore[assignment]

_CELERYS: Final = ("worker", "beat")

_names: dict[int, str] = {}
_serving: list[str] = []
_operations: dict[int, list[LongOperation]] = {}


def process_role() -> str:
    """What this process is; asked at every checkout, so it is worked out once for the arguments it has."""
    return _role_known(tuple(sys.argv))


def role_of(arguments: Sequence[str]) -> str:
    """What a process is, by how it was started: ``manage.py relay``, ``celery worker``, ``gunicorn``.

    Never more than a program and its command, since arguments may hold anything.
    """
    path = PurePath(arguments[0]) if arguments else PurePath()
    # python -m celery.
    name = path.parent.name if path.name == "__main__.py" else path.name
    if name.startswith("-"):
        name = "python"
    words = arguments[1:2] if name == "manage.py" else [word for word in arguments[1:] if word in _CELERYS]
    command = next((word for word in words if not word.startswith("-")), "") if name in ("manage.py", "celery") else ""
    return f"{name} {command}".strip()[:60]


@lru_cache(maxsize=8)
def _role_known(arguments: tuple[str, ...]) -> str:
    return role_of(arguments)


@dataclass(frozen=True, slots=True)
class LongOperation:
    """Work that said how long it will take.

    Attributes:
        name: what it is.
        seconds: how long it may take.
        started: monotonic instant of its beginning.
    """

    name: str
    seconds: float
    started: float = field(default_factory=time.monotonic)

    @property
    def is_over_time(self) -> bool:
        """Whether it takes longer than it said."""
        return time.monotonic() - self.started > self.seconds


@contextmanager
def long_operation(name: str, *, minutes: float) -> Iterator[LongOperation]:
    """Say that this thread holds a database connection for long, on purpose.

    Until the time is over nothing is reported, reclaimed or refreshed; after it, it is reported under its name.

    Args:
        name: what the warning calls it.
        minutes: how long it may take.
    """
    operation = LongOperation(name, minutes * 60)
    mine = _operations.setdefault(threading.get_ident(), [])
    mine.append(operation)
    try:
        yield operation
    finally:
        mine.remove(operation)
        if not mine:
            _operations.pop(threading.get_ident(), None)


def long_operation_of(thread: int) -> LongOperation | None:
    """The innermost long operation that a thread is in."""
    mine = _operations.get(thread)
    return mine[-1] if mine else None


def serve_requests() -> None:
    """Say that this process, and what it forks, answers requests: its sessions wait for no lock for long.

    Called before the first connection is made, by what loads the application for a web server.
    """
    _serving[:] = ["requests"]


def is_serving_requests() -> bool:
    """Whether somebody waits for what this process does."""
    return bool(_serving)


def work_named(thread: int) -> str:
    """What a thread is at: ``request GET /path`` or ``task name[id]``, never a query string; empty for neither."""
    return _names.get(thread, "")


def connect_signals() -> None:
    """Take note of requests and tasks as they begin and end."""
    request_started.connect(_request_started, dispatch_uid="dbresilience.work")
    request_finished.connect(_finished, dispatch_uid="dbresilience.work")
    if celery_signals is not None:
        celery_signals.task_prerun.connect(_task_started, dispatch_uid="dbresilience.work")
        celery_signals.task_postrun.connect(_finished, dispatch_uid="dbresilience.work")


def _request_started(environ: dict[str, Any] | None = None, **_: Any) -> None:
    if environ is not None:
        path = str(environ.get("PATH_INFO", ""))[:200]
        _names[threading.get_ident()] = f"request {environ.get('REQUEST_METHOD', '')} {path}"


def _task_started(task_id: str = "", task: Any = None, **_: Any) -> None:
    _names[threading.get_ident()] = f"task {getattr(task, 'name', '')}[{task_id}]"


def _finished(**_: Any) -> None:
    _names.pop(threading.get_ident(), None)
