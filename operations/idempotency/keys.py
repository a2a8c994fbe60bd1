"""The life of a key: begun in a commit of its own, completed in the transaction of the work, kept, forgotten.

Nothing is done twice. Of all requests with one key, one inserts the row; the others find it. Whoever has it locks the
row at the beginning of its transaction and completes it at the end, both on the condition that the token is its own.
If it dies, its transaction is rolled back by the server and its lock is gone; a later request may then take the row
over with a new token. If it was only suspended before its transaction began, it finds another token and stops.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson
from django.db import connection

from operations.correlation import correlation_id
from operations.idempotency.conf import idempotency_settings
from operations.idempotency.errors import AnswerErased, KeyInFlight, KeyReused

CLEANED_AT_ONCE: Final = 1_000
FORGOTTEN: Final = "0" * 64
"""In the place of a fingerprint: the answer was erased. No request has this one, and all with the key match it."""

# One round trip for a new key and for a known one; neither is found when two begin at once, and then it is asked again.
# Not waited for on disk: the commit of the work comes later in the same log of writes, so whenever that one is on disk
# this one is too; and a key without work may as well be forgotten by a crash.
BEGIN_SQL: Final = """
WITH known AS MATERIALIZED (
  SELECT id, fingerprint, status, headers::text AS headers, body, expires_at < clock_timestamp() AS is_expired,
         extract(epoch FROM lease_until - clock_timestamp())::float8 AS lease
    FROM operations_idempotency
   WHERE actor = %(actor)s AND key = %(key)s AND method = %(method)s AND route = %(route)s
), quick AS MATERIALIZED (
  SELECT set_config('synchronous_commit', 'off', true) WHERE NOT EXISTS (SELECT 1 FROM known)
), made AS (
  INSERT INTO operations_idempotency (actor, key, method, route, fingerprint, token, lease_until, expires_at,
                                      correlation_id)
  SELECT %(actor)s, %(key)s, %(method)s, %(route)s, %(fingerprint)s, %(token)s,
         clock_timestamp() + make_interval(secs => %(lease)s), clock_timestamp() + make_interval(secs => %(life)s),
         %(correlation)s
    FROM quick
  ON CONFLICT (actor, key, method, route) DO NOTHING
  RETURNING id
)
SELECT true, id, NULL, NULL, NULL, NULL, NULL, NULL FROM made
UNION ALL
SELECT false, id, fingerprint, status, headers, body, is_expired, lease FROM known
"""
# Only where no transaction holds the row: then whoever had it is dead or has not begun, and its token is void from now.
TAKE_OVER_SQL: Final = """
UPDATE operations_idempotency
   SET token = %(token)s, lease_until = clock_timestamp() + make_interval(secs => %(lease)s)
 WHERE id = (SELECT id FROM operations_idempotency
              WHERE id = %(id)s AND status IS NULL AND lease_until <= clock_timestamp() FOR UPDATE SKIP LOCKED)
RETURNING id
"""
EXPIRE_SQL: Final = """
DELETE FROM operations_idempotency
 WHERE id = (SELECT id FROM operations_idempotency
              WHERE id = %(id)s AND expires_at < clock_timestamp() FOR UPDATE SKIP LOCKED)
"""
LOCK_SQL: Final = """
SELECT 1 FROM operations_idempotency WHERE id = %(id)s AND token = %(token)s AND status IS NULL FOR NO KEY UPDATE
"""
COMPLETE_SQL: Final = """
UPDATE operations_idempotency
   SET status = %(status)s, headers = %(headers)s::jsonb, body = %(body)s, subject = %(subject)s
 WHERE id = %(id)s AND token = %(token)s AND status IS NULL
"""
# By work that outlives its request: it was bound to the key under the key's lock, so no token is asked for.
ANSWER_SQL: Final = """
UPDATE operations_idempotency
   SET status = %(status)s, headers = %(headers)s::jsonb, body = %(body)s, subject = %(subject)s
 WHERE id = %(id)s AND status IS NULL
"""
ANSWERED_SQL: Final = """
SELECT fingerprint, status, headers::text, body FROM operations_idempotency WHERE id = %(id)s AND status IS NOT NULL
"""
# If the transaction of the work is still open somewhere, its answer lost, the row is locked and left as it is.
RELEASE_SQL: Final = """
DELETE FROM operations_idempotency
 WHERE id = (SELECT id FROM operations_idempotency
              WHERE id = %(id)s AND token = %(token)s AND status IS NULL FOR UPDATE SKIP LOCKED)
"""
# By the index of expires_at, for which the moment is read once: the bare function would be asked for every key.
CLEAN_SQL: Final = """
DELETE FROM operations_idempotency
 WHERE id IN (SELECT id FROM operations_idempotency WHERE expires_at < (SELECT clock_timestamp())
               ORDER BY expires_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED)
"""
# The key stays until it expires: deleted, a late repeat would have a second effect, and bring back who was erased. The
# fingerprint goes, too: whoever guesses what was sent could tell by it whether the guess is right.
FORGET_SQL: Final = """
UPDATE operations_idempotency
   SET fingerprint = %(forgotten)s, status = %(status)s, headers = '{}', body = '', subject = ''
 WHERE subject = %(subject)s AND status IS NOT NULL
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What a key is valid for: the same key of another caller, or for another address, is another key."""

    actor: str
    key: str
    method: str
    route: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An answer that is kept.

    Attributes:
        status: of the answer.
        headers: of the answer.
        body: as it is sent.
        subject: whom it speaks of, as ``customer:0190…``, so that it can be erased; empty if of nobody.
    """

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    subject: str = ""


@dataclass(frozen=True, slots=True)
class HeldKey:
    """A key whose request is ours to carry out."""

    id: int
    token: uuid.UUID

    def lock(self) -> None:
        """Begin the work, first in its transaction.

        Raises:
            KeyInFlight: another request took the key over.
        """
        with connection.cursor() as cursor:
            cursor.execute(LOCK_SQL, {"id": self.id, "token": self.token})
            if cursor.fetchone() is None:
                raise KeyInFlight(headers={"Retry-After": "1"})

    def complete(self, answer: Answer) -> None:
        """Write the answer, last in the transaction of the work.

        Raises:
            KeyInFlight: another request took the key over; the transaction must be rolled back.
        """
        values: dict[str, Any] = {"id": self.id, "token": self.token, "status": answer.status, "body": answer.body}
        values |= {"headers": orjson.dumps(dict(answer.headers)).decode(), "subject": answer.subject[:200]}
        with connection.cursor() as cursor:
            cursor.execute(COMPLETE_SQL, values)
            if cursor.rowcount != 1:
                raise KeyInFlight(headers={"Retry-After": "1"})

    def release(self) -> None:
        """Forget the key, after work that left nothing: the next request with it begins anew."""
        with connection.cursor() as cursor:
            cursor.execute(RELEASE_SQL, {"id": self.id, "token": self.token})


def key_begin(scope: Scope, fingerprint: str, *, lease: float | None = None) -> HeldKey | Answer:
    """Begin a request with a key, outside of any transaction.

    Args:
        scope: what the key is valid for.
        fingerprint: of all that was sent.
        lease: seconds after which somebody else may take it over; None for ``IDEMPOTENCY_LEASE``.

    Returns:
        The key, if the request is ours to carry out, else the answer that it had.

    Raises:
        AnswerErased: it was answered, and the answer was erased.
        KeyReused: the key was used for another request.
        KeyInFlight: the same request is being carried out.
    """
    config = idempotency_settings()
    token = uuid.uuid4()
    values: dict[str, Any] = {
        "actor": scope.actor[:200],
        "key": scope.key,
        "method": scope.method,
        "route": scope.route,
        "fingerprint": fingerprint,
        "token": token,
        "lease": config.lease if lease is None else lease,
        "life": config.life,
        "correlation": correlation_id(),
    }
    with connection.cursor() as cursor:
        # A row that comes or goes meanwhile sends us round again; nobody is that unlucky for long.
        for _ in range(10):
            cursor.execute(BEGIN_SQL, values)
            if (row := cursor.fetchone()) is None:
                continue
            is_ours, key, known, status, headers, body, is_expired, left = row
            if is_ours:
                return HeldKey(key, token)
            if is_expired:
                cursor.execute(EXPIRE_SQL, {"id": key})
                if cursor.rowcount:
                    continue
            if known == FORGOTTEN and status is not None:
                raise AnswerErased
            if known != fingerprint:
                raise KeyReused
            if status is not None:
                return Answer(status=status, headers=orjson.loads(headers), body=bytes(body))
            cursor.execute(TAKE_OVER_SQL, {"id": key, "token": token, "lease": values["lease"]})
            if cursor.fetchone() is not None:
                return HeldKey(key, token)
            raise KeyInFlight(headers={"Retry-After": str(max(1, round(left)))})
    raise KeyInFlight(headers={"Retry-After": "1"})


def answer_complete(*, key_id: int, answer: Answer) -> None:
    """Write the answer of work that goes on without its request, last in the transaction that ends it.

    The work was written down in a transaction that held the key (``HeldKey.lock``), so it is the only one with it,
    whoever has taken the key over since. A key that has expired meanwhile is nobody's any more.
    """
    values: dict[str, Any] = {"id": key_id, "status": answer.status, "body": answer.body}
    values |= {"headers": orjson.dumps(dict(answer.headers)).decode(), "subject": answer.subject[:200]}
    with connection.cursor() as cursor:
        cursor.execute(ANSWER_SQL, values)


def answer_kept(*, key_id: int) -> Answer | None:
    """The answer of a key; None if it has none, or is gone.

    Raises:
        AnswerErased: it was erased.
    """
    with connection.cursor() as cursor:
        cursor.execute(ANSWERED_SQL, {"id": key_id})
        row = cursor.fetchone()
    if row is None:
        return None
    known, status, headers, body = row
    if known == FORGOTTEN:
        raise AnswerErased
    return Answer(status=status, headers=orjson.loads(headers), body=bytes(body))


def keys_clean_once() -> int:
    """Delete keys that have expired, in small batches; how many."""
    cleaned = 0
    with connection.cursor() as cursor:
        while True:
            cursor.execute(CLEAN_SQL, {"limit": CLEANED_AT_ONCE})
            count = int(cursor.rowcount)
            cleaned += count
            if count < CLEANED_AT_ONCE:
                return cleaned


def answers_forget(*, subject: str) -> int:
    """Erase the kept answers that speak of somebody, in the transaction under way; how many.

    Until its key expires, any request with it is told that the answer was erased (``AnswerErased``), and does nothing.
    """
    values: dict[str, Any] = {"subject": subject, "forgotten": FORGOTTEN, "status": AnswerErased.status}
    with connection.cursor() as cursor:
        cursor.execute(FORGET_SQL, values)
        return int(cursor.rowcount)
