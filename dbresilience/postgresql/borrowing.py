"""Who holds a connection of the pool, since when, and from where in the code."""

from __future__ import annotations

import linecache
import sys
import threading
import weakref
from contextlib import suppress
from inspect import unwrap
from types import CodeType, FrameType
from typing import Any, Final

import psycopg
from django.db.backends.base.base import BaseDatabaseWrapper

from dbresilience.postgresql.connection import Connection
from dbresilience.statements import normalised
from dbresilience.work import process_role, work_named

_DEPTH: Final = 16
_LINES: Final = 12
# How far below ``ensure_connection`` the loan is noted when the backend asks. To look at a frame is to make an object
# of it, so those between, which nobody wants to read either, are passed over.
_BACKEND_DEPTH: Final = 7
_ENSURE_CONNECTION: Final = unwrap(BaseDatabaseWrapper.ensure_connection).__code__
# What every borrower passes through and nobody wants to read.
_PLUMBING: Final = (
    "/psycopg_pool/",
    "/psycopg/",
    "/django/db/",
    "/dbresilience/postgresql/",
    "/contextlib.py",
    "/django/utils/asyncio.py",
    # Twice for each middleware.
    "/django/core/handlers/exception.py",
    "/django/utils/deprecation.py",
    "/django/test/",
)


class Borrowing:
    """One loan of a connection.

    Only code objects and offsets are kept of the stack: frames would keep the borrower's variables alive, and finding
    lines and names can wait until somebody wants to read them.
    """

    __slots__ = ("_stack", "_work", "connection", "reclaimed", "since", "thread", "thread_object", "warned")

    def __init__(self, connection: weakref.ref[Connection], since: float) -> None:
        self.connection = connection
        self.since = since
        # The object too: numbers of threads come again.
        self.thread_object = threading.current_thread()
        self.thread = threading.get_ident()
        # Now, since the thread may be at another request when somebody asks; the process's role stays what it is.
        self._work = work_named(self.thread)
        self.reclaimed = False
        self.warned = 0.0
        # Codes and offsets by turns in one list: pairs would be objects for the collector to look through.
        self._stack: list[Any] = []
        note = self._stack.append
        frame: FrameType | None
        try:
            frame = sys._getframe(_BACKEND_DEPTH)
        except ValueError:
            frame = None
        if frame is None or frame.f_code is not _ENSURE_CONNECTION:
            # Somebody asked the pool itself.
            frame = sys._getframe(3)
        for _ in range(_DEPTH):
            note(frame.f_code)
            note(frame.f_lasti)
            frame = frame.f_back
            if frame is None:
                break

    @property
    def work(self) -> str:
        """What it was borrowed for: a request, a task, or whatever the process is."""
        return self._work or process_role() or "process"

    @property
    def pid(self) -> int:
        """Of the server's process; 0 when the connection is closed or gone."""
        connection = self.connection()
        with suppress(psycopg.Error):
            return 0 if connection is None else connection.pgconn.backend_pid
        return 0

    def stack(self) -> list[str]:
        """Where it was borrowed, innermost last, as ``file:line in function: source``."""
        pairs = zip(self._stack[::2], self._stack[1::2], strict=True)
        found = [(code, _line_of(code, offset)) for code, offset in pairs][::-1]
        return _readable(found)

    def stack_now(self) -> list[str]:
        """What the borrower's thread runs at this moment; empty when it has ended."""
        frame = sys._current_frames().get(self.thread)
        found: list[tuple[CodeType, int]] = []
        while frame is not None and len(found) < _DEPTH:
            found.append((frame.f_code, frame.f_lineno or 0))
            frame = frame.f_back
        return _readable(found[::-1])

    def last_statement(self) -> str:
        """The statement that it began last, without its parameters; empty when there was none."""
        connection = self.connection()
        if connection is None:
            return ""
        # A copy, since its thread may add to it.
        trail = connection.trail.copy()
        return statement_text(trail[-1]) if trail else ""


def statement_text(statement: object) -> str:
    """A statement as text without any value in it, 300 characters at most."""
    if isinstance(statement, bytes):
        statement = statement.decode(errors="replace")
    return normalised(statement if isinstance(statement, str) else repr(statement))[:300]


def _line_of(code: CodeType, offset: int) -> int:
    for start, end, line in code.co_lines():
        if start <= offset < end and line is not None:
            return line
    return code.co_firstlineno


def _readable(found: list[tuple[CodeType, int]]) -> list[str]:
    ours = [item for item in found if not any(part in item[0].co_filename for part in _PLUMBING)]
    return [
        f"{code.co_filename}:{line} in {code.co_qualname}: {linecache.getline(code.co_filename, line).strip()}"
        for code, line in (ours or found)[-_LINES:]
    ]
