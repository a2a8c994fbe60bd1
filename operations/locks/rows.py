"""Taking, looking at and giving back locks in the transaction under way."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from django.db import connection

from operations.locks.errors import LockLost, LockTaken
from operations.locks.metrics import LOCKS_CONTENDED, LOCKS_EXPIRED, LOCKS_TAKEN

# Two that take one name at the same moment meet at the unique index: the second waits for the first one's commit, then
# finds the row. Only a lock that has run out changes hands. The clock is the server's.
TAKE_SQL: Final = """
INSERT INTO operations_lock AS l (kind, key, token, holder, taken_at, until, contended)
VALUES (%(kind)s, %(key)s, nextval('operations_lock_token_seq'), %(holder)s, clock_timestamp(),
        clock_timestamp() + make_interval(secs => %(seconds)s), 0)
ON CONFLICT (kind, key) DO UPDATE
   SET token = excluded.token, holder = excluded.holder, taken_at = excluded.taken_at, until = excluded.until
 WHERE l.until <= clock_timestamp()
RETURNING token, xmax <> 0
"""
HOLDER_SQL: Final = """
SELECT kind, key, holder, until FROM operations_lock
 WHERE (kind, key) IN (SELECT * FROM unnest(%(kinds)s::text[], %(keys)s::text[]))
   AND (until IS NULL OR until > clock_timestamp()) LIMIT 1
"""
# A share of the row, kept to the end of the transaction: nobody can take the lock before what is written here is
# committed.
CHECK_SQL: Final = """
SELECT 1 FROM operations_lock WHERE kind = %(kind)s AND key = %(key)s AND token = %(token)s FOR SHARE
"""
RENEW_SQL: Final = """
UPDATE operations_lock SET until = clock_timestamp() + make_interval(secs => %(seconds)s)
 WHERE kind = %(kind)s AND key = %(key)s AND token = %(token)s
"""
RELEASE_SQL: Final = """
DELETE FROM operations_lock WHERE kind = %(kind)s AND key = %(key)s AND token = %(token)s
"""
RELEASE_ALL_SQL: Final = "DELETE FROM operations_lock WHERE holder = %(holder)s"
CONTENDED_SQL: Final = "UPDATE operations_lock SET contended = contended + 1 WHERE kind = %(kind)s AND key = %(key)s"


class LockName(NamedTuple):
    """What is locked."""

    kind: str
    key: str


def locks_take(names: Iterable[LockName], *, holder: str, seconds: float | None = None) -> Mapping[LockName, int]:
    """Take all of them or none, in the transaction under way; others see them when it commits.

    In sorted order, so that two who want the same ones wait for each other instead of deadlocking.

    Args:
        holder: who takes them, as ``saga:0190…``.
        seconds: after which others may take them; None: never, the holder gives them back.

    Returns:
        The fencing token of each.

    Raises:
        LockTaken: somebody has one of them; the transaction must be rolled back.
    """
    tokens: dict[LockName, int] = {}
    with connection.cursor() as cursor:
        for name in sorted(set(names)):
            cursor.execute(TAKE_SQL, {**name._asdict(), "holder": holder[:200], "seconds": seconds})
            if (row := cursor.fetchone()) is None:
                raise lock_holder(name) or LockTaken(name.kind, name.key)
            tokens[name] = row[0]
            LOCKS_TAKEN.labels(name.kind).inc()
            if row[1]:
                LOCKS_EXPIRED.labels(name.kind).inc()
    return tokens


def lock_holder(*names: LockName) -> LockTaken | None:
    """Who has one of them, as the error to raise; None when all are free.

    Whoever writes what a lock protects asks this **after** it locked the row, in a statement of its own: under READ
    COMMITTED that one sees every lock that was committed before the row's lock was had.
    """
    with connection.cursor() as cursor:
        cursor.execute(HOLDER_SQL, {"kinds": [name.kind for name in names], "keys": [name.key for name in names]})
        row = cursor.fetchone()
    return LockTaken(*row) if row else None


def lock_check(name: LockName, token: int) -> None:
    """Begin what is written under a lock.

    Raises:
        LockLost: it ran out, and somebody else has it or had it.
    """
    with connection.cursor() as cursor:
        cursor.execute(CHECK_SQL, {**name._asdict(), "token": token})
        if cursor.fetchone() is None:
            raise LockLost


def lock_renew(name: LockName, token: int, *, seconds: float) -> None:
    """Hold it for that long from now.

    Raises:
        LockLost: it ran out, and somebody else has it or had it.
    """
    with connection.cursor() as cursor:
        cursor.execute(RENEW_SQL, {**name._asdict(), "token": token, "seconds": seconds})
        if cursor.rowcount != 1:
            raise LockLost


def lock_release(name: LockName, token: int) -> None:
    """Give it back, if it is still ours."""
    with connection.cursor() as cursor:
        cursor.execute(RELEASE_SQL, {**name._asdict(), "token": token})


def locks_release(*, holder: str) -> int:
    """Give back all that this holder has; how many."""
    with connection.cursor() as cursor:
        cursor.execute(RELEASE_ALL_SQL, {"holder": holder[:200]})
        return int(cursor.rowcount)


def lock_contended(taken: LockTaken) -> None:
    """Count that somebody found it taken: in the metrics, and at the lock. Not in the transaction that it ended."""
    LOCKS_CONTENDED.labels(taken.kind).inc()
    with connection.cursor() as cursor:
        cursor.execute(CONTENDED_SQL, {"kind": taken.kind, "key": taken.key})
