"""What may be kept of an exception: never the rows that PostgreSQL quotes in the details of an error.

``DETAIL: Failing row contains (…)`` and ``Key (email)=(…) already exists`` are people's data; rows of failures outlive
the erasure of a person. The primary message names tables, columns and constraints alone.
"""

from __future__ import annotations

import traceback

import psycopg


def error_text(exc: BaseException) -> str:
    """What the exception says; of a database error its primary message alone."""
    for error in (exc, exc.__cause__):
        if isinstance(error, psycopg.Error) and (error is exc or str(error) == str(exc)):
            # Errors that libpq or psycopg raise have no diagnosis of the server's; they tell more in later lines.
            return error.diag.message_primary or str(error).partition("\n")[0]
    return str(exc)


def traceback_text(exc: BaseException) -> str:
    """The traceback of an exception and of those that led to it, each with ``error_text`` in place of its text."""
    parts: list[str] = []
    seen: set[int] = set()
    error: BaseException | None = exc
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        name = f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins.")
        frames = "".join(traceback.format_tb(error.__traceback__))
        parts.append(f"Traceback (most recent call last):\n{frames}{name}: {error_text(error)}\n")
        if error.__cause__ is not None:
            parts.append("\nThe above exception was the direct cause of the following exception:\n\n")
            error = error.__cause__
        elif error.__context__ is not None and not error.__suppress_context__:
            parts.append("\nDuring handling of the above exception, another exception occurred:\n\n")
            error = error.__context__
        else:
            error = None
    return "".join(reversed(parts))
