"""Racing writers: threads with a connection each, and what the server says of their locks."""

from __future__ import annotations

import threading
from collections.abc import Callable

from django.db import connection


def in_threads(*functions: Callable[[], object]) -> list[Exception]:
    """Run all at once, each on a connection of its own; return what they raised."""
    errors: list[Exception] = []
    start = threading.Barrier(len(functions))

    def guarded(function: Callable[[], object]) -> None:
        try:
            connection.ensure_connection()
            start.wait(timeout=60)
            function()
        except Exception as exc:  # noqa: BLE001 - returned, and asserted by the test
            errors.append(exc)
        finally:
            connection.close()

    threads = [threading.Thread(target=guarded, args=(function,)) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    return errors


def wait_until_somebody_waits_for_me() -> None:
    """Return once another session waits for a lock of this one. The server says so; no clock is trusted.

    Not by ``pg_stat_activity``, which shows a transaction the sessions of its first look for ever.
    """
    with connection.cursor() as cursor:
        for _ in range(2000):
            cursor.execute(
                "SELECT count(*) FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY (pg_blocking_pids(pid))"
            )
            if cursor.fetchone()[0]:
                return
            cursor.execute("SELECT pg_sleep(0.005)")
    raise AssertionError("nobody waited")
