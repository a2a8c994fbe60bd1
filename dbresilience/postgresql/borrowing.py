"""Who holds a connection of the pool, since when, and from where in the code."""

from __future__ import annotations

import linecache
import sys
import threading
import weakref
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any, Final

from dbresilience.postgresql.connection import Connection
from dbresilience.statements import normalised
from dbresilience.work import process_role, work_named

_DEPTH: Final = 25
_ITEMS: Final = 2 * _DEPTH
_LINES: Final = 12
# What every borrower passes through and nobody wants to read.
_PLUMBING: Final = (
    "/psycopg_pool/",
    "/psycopg/",
    "/django/db/",
    "/dbresilience/postgresql/",
    "/contextlib.py",
    "/django/utils/asyncio.py",
    "/django/test/",
)


class Borrowing:
    """One loan of a connection.

    Only code objects and offsets are kept of the stack: frames would keep the borrower's variables alive, and finding
    lines and names can wait until somebody wants to read them.
    """

    __slots__ = ("_stack", "_work", "connection", "pid", "reclaimed", "since", "thread", "thread_object", "warned")

    def __init__(self, connection: Connection, since: float, on_lost: Callable[[object], None]) -> None:
        self.connection = weakref.ref(connection, on_lost)
        self.since = since
        # The object too: numbers of threads come again.
        self.thread_object = threading.current_thread()
        self.thread = threading.get_ident()
        self.pid = connection.pgconn.backend_pid
        # Now, since the thread may be at another request when somebody asks; the process's role stays what it is.
        self._work = work_named(self.thread)
        self.reclaimed = False
        self.warned = 0.0
        # Codes and offsets by turns in one list: pairs would be objects for the collector to look through.
        stack: list[Any] = []
        frame: FrameType | None = sys._getframe(2)
        while frame is not None and len(stack) < _ITEMS:
            stack += (frame.f_code, frame.f_lasti)
            frame = frame.f_back
        self._stack = stack

    @property
    def work(self) -> str:
        """What it was borrowed for: a request, a task, or whatever the process is."""
        return self._work or process_role() or "process"

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
        return "" if connection is None else statement_text(connection.last_statement)


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
