"""How a process starts, and what it says in one line when it cannot: wrong settings, a server that is away."""

from __future__ import annotations

import logging
import os
import select
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final
from urllib.parse import urlsplit

from django.core.exceptions import ImproperlyConfigured
from django.core.management import execute_from_command_line
from django.db import InterfaceError, OperationalError
from redis.exceptions import ConnectionError as RedisAway
from redis.exceptions import TimeoutError as RedisSilent

from dbresilience.sqlstate import is_connection_loss

SERVICES: Final = {"relay", "kafka_worker", "runserver"}
"""Commands that run on and on: what they log is what they say."""

VERBED: Final = {"apikey", "conflicts", "operations", "projection_failures", "troubles"}
"""Commands that do nothing without a verb: alone, each shows its verbs."""

_HINT: Final = "Under make run: is it running, and was .sandbox/env read since it started?"


@contextmanager
def wrong_settings_told() -> Iterator[None]:
    """End the process with the name of the setting and the reason; where in the code it was read helps nobody.

    Raises:
        SystemExit: with status 1, a setting is wrong.
    """
    try:
        yield
    except ImproperlyConfigured as exc:
        sys.exit(f"Not started: {exc}")


def command_line(arguments: list[str]) -> None:
    """Run one command of Django's command line.

    With ``--traceback`` a server that is away is told with the whole traceback, as any other error is.

    Raises:
        SystemExit: with status 1, a setting is wrong; with 69 (``EX_UNAVAILABLE``), a server cannot be reached; with
            141, as of any program that SIGPIPE ends, whoever read what the command prints has gone.
    """
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "zenskar.settings")
    quiet = not os.environ.get("LOG_LEVEL") and not SERVICES.intersection(arguments[1:2])
    if quiet:
        # The answer is what the command prints; what it did is in the audit trail.
        os.environ["LOG_LEVEL"] = "WARNING"
        # What the pool tells of each attempt to connect is told once, at the end.
        logging.getLogger("psycopg.pool").setLevel(logging.ERROR)
    try:
        try:
            with wrong_settings_told():
                execute_from_command_line(_understood(arguments))
        finally:
            # What is still held back goes out here and not while Python ends, where nobody could deal with its failing.
            if sys.stdout:  # None when it was closed before the start
                sys.stdout.flush()
    except BrokenPipeError:
        # Not by SIGPIPE's own action: that would also end the process when a server closes its connection.
        if not (sys.stdout and _is_unread(sys.stdout.fileno())):
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except (OperationalError, InterfaceError, RedisAway, RedisSilent) as exc:
        away = "" if "--traceback" in arguments else _away(exc)
        if not away:
            raise
        sys.stderr.write(f"{away} {_HINT}\n")
        sys.exit(os.EX_UNAVAILABLE)


def _is_unread(file: int) -> bool:
    """Whether it is a pipe, or a connection, whose reader has gone, as ``head`` does when it has its lines."""
    polled = select.poll()
    polled.register(file, 0)
    return any(events & (select.POLLERR | select.POLLHUP) for _, events in polled.poll(0))


def _understood(arguments: list[str]) -> list[str]:
    """The arguments with the help where a verb is missing, and ``--traceback`` where the command itself takes it."""
    if len(arguments) == 2 and arguments[1] in VERBED:
        return [*arguments, "--help"]
    if "--traceback" in arguments[3:]:
        program, command, *rest = arguments
        return [program, command, "--traceback", *(one for one in rest if one != "--traceback")]
    return arguments


def _away(exc: Exception) -> str:
    """Which server cannot be reached, where, and why; empty when the error says something else."""
    from django.conf import settings

    if isinstance(exc, RedisAway | RedisSilent):
        parts = urlsplit(settings.REDIS_URL)
        return f"Redis at {parts.hostname or 'localhost'}:{parts.port or 6379} cannot be reached."
    if not is_connection_loss(exc):
        return ""
    database = settings.DATABASES["default"]
    host, port = database.get("HOST") or "the local socket", database.get("PORT") or 5432
    reason = _reason(exc)
    return f"The database at {host}:{port} cannot be reached{f' ({reason})' if reason else ''}."


def _reason(exc: BaseException) -> str:
    """The last words of libpq's first line, from the error that the others were raised from."""
    while exc.__cause__ is not None:
        exc = exc.__cause__
    first, separator, _ = str(exc).partition("\n")
    return first.rpartition(" failed: ")[2].removeprefix("FATAL:  ") if separator or " failed: " in first else ""
