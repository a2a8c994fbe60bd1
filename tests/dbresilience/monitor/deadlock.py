"""A deadlock of two sessions, made to order."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from django.db import Error, connection, transaction

from dbresilience.transactions import run_in_transaction


def lock_in_reverse(first: Sequence[str], second: Sequence[str], *, retried: bool = True) -> list[Error]:
    """Run both lists of statements in transactions that each stop between their two halves until both got there.

    The victim comes again when the other one is through: before that it could take what the other one was just granted,
    and the two would meet once more.

    Returns:
        What they raised: nothing when the victim was retried, one error when it was not.
    """
    barrier = threading.Barrier(2)
    one_is_through = threading.Event()
    errors: list[Error] = []

    def work(statements: Sequence[str]) -> None:
        runs: list[int] = []

        def body() -> None:
            runs.append(1)
            if len(runs) > 1:
                one_is_through.wait(timeout=60)
            middle = len(statements) // 2
            with connection.cursor() as cursor:
                for number, statement in enumerate(statements):
                    if number == middle and len(runs) == 1:
                        barrier.wait(timeout=60)
                    cursor.execute(statement)

        try:
            if retried:
                run_in_transaction(body)
            else:
                with transaction.atomic():
                    body()
        except Error as exc:
            errors.append(exc)
        finally:
            one_is_through.set()
            connection.close()

    threads = [threading.Thread(target=work, args=(statements,)) for statements in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    return errors
