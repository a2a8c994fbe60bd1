"""Answers kept in the transaction of the work: what a view or a function does in the database alone.

Effect and answer are one commit. The transaction begins with an advisory lock of the key's, so a second request with
it is told that the first is in flight, and a process that dies lets go of both at once. The lock only spares work: that
there is one effect follows from the unique key. Of two that did the work all the same (one looked before the other had
committed, and began after), the second finds the row of the first when it writes its own, and is rolled back.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

import orjson

from dbresilience.prepared import prepared_rows
from operations.correlation import correlation_id
from operations.idempotency.conf import idempotency_settings
from operations.idempotency.errors import AnswerErased, KeyInFlight, KeyReused
from operations.idempotency.keys import FORGOTTEN, Answer, Scope

# By the unique key, in one read.
LOOK_SQL: Final = """
SELECT fingerprint, status, headers::text, body, extract(epoch FROM lease_until - clock_timestamp())::float8
  FROM operations_idempotency
 WHERE actor = %(actor)s AND key = %(key)s AND method = %(method)s AND route = %(route)s
   AND expires_at >= clock_timestamp()
"""
# Waits for a transaction that writes the same key. A row that has expired, or whose request died before it began, is
# written over; any other stays, and nothing is returned. Its moment is the one at which the work began: in the life of
# a thing the call stands before what it did.
KEEP_SQL: Final = """
INSERT INTO operations_idempotency AS kept
       (actor, key, method, route, fingerprint, token, lease_until, expires_at, correlation_id, status, headers, body,
        subject, created_at)
VALUES (%(actor)s, %(key)s, %(method)s, %(route)s, %(fingerprint)s, gen_random_uuid(), clock_timestamp(),
        clock_timestamp() + make_interval(secs => %(life)s), %(correlation)s, %(status)s, %(headers)s::jsonb, %(body)s,
        %(subject)s, transaction_timestamp())
    ON CONFLICT (actor, key, method, route) DO UPDATE
   SET (fingerprint, token, lease_until, expires_at, correlation_id, status, headers, body, subject, created_at)
     = (EXCLUDED.fingerprint, EXCLUDED.token, EXCLUDED.lease_until, EXCLUDED.expires_at, EXCLUDED.correlation_id,
        EXCLUDED.status, EXCLUDED.headers, EXCLUDED.body, EXCLUDED.subject, EXCLUDED.created_at)
 WHERE kept.expires_at < clock_timestamp()
    OR (kept.status IS NULL AND kept.lease_until < clock_timestamp() AND kept.fingerprint = EXCLUDED.fingerprint)
RETURNING id
"""


class Answered(Exception):
    """Another request with this key was answered first; the transaction under way must be rolled back."""


def lock_of(scope: Scope) -> int:
    """Number of the advisory lock of a key: 64 bits of a digest, so that two keys share one by no accident."""
    said = "\0".join((scope.actor, scope.key, scope.method, scope.route))
    return int.from_bytes(hashlib.sha256(said.encode()).digest()[:8], "big", signed=True)


def answer_find(scope: Scope, fingerprint: str) -> Answer | None:
    """The answer that a request had; None if it is ours to carry out.

    Args:
        scope: what the key is valid for.
        fingerprint: of all that was sent.

    Raises:
        AnswerErased: it was answered, and the answer was erased.
        KeyReused: the key was used for another request.
        KeyInFlight: a request that goes on without its caller has the key.
    """
    rows = prepared_rows(LOOK_SQL, _key(scope))
    if not rows:
        return None
    known, status, headers, body, lease = rows[0]
    if known == FORGOTTEN and status is not None:
        raise AnswerErased
    if known != fingerprint:
        raise KeyReused
    if status is not None:
        return Answer(status=status, headers=orjson.loads(headers), body=bytes(body))
    if lease > 0:
        raise KeyInFlight(headers={"Retry-After": str(max(1, round(lease)))})
    return None


def answer_keep(scope: Scope, fingerprint: str, answer: Answer) -> None:
    """Write an answer down, last in the transaction of the work.

    Raises:
        Answered: another request with the key was first.
    """
    values = _key(scope) | {
        "fingerprint": fingerprint,
        "life": idempotency_settings().life,
        "correlation": correlation_id(),
        "status": answer.status,
        "headers": orjson.dumps(dict(answer.headers)).decode(),
        "body": answer.body,
        "subject": answer.subject[:200],
    }
    if not prepared_rows(KEEP_SQL, values):
        raise Answered(Answered.__doc__)


def _key(scope: Scope) -> dict[str, Any]:
    return {"actor": scope.actor[:200], "key": scope.key, "method": scope.method, "route": scope.route}
