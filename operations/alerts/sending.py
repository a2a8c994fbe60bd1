"""Sending the notices: outside of any transaction, each by one worker at a time, again until it went or is given up."""

from __future__ import annotations

import time
from typing import Any, Final

import structlog
from django.db import connection

from operations.alerts.channels import Message, send
from operations.alerts.conf import alert_settings
from operations.models import AlertNotice

log = structlog.get_logger(__name__)

MOST_ATTEMPTS: Final = 8
LONGEST_WAIT: Final = 3600.0

# The oldest due one. Its next attempt is moved past the time that sending may take, which is its lease: a worker that
# dies meanwhile leaves it to be sent again, with the same id. SKIP LOCKED: two workers take different ones.
CLAIM_SQL: Final = """
WITH due AS (
  SELECT id FROM operations_alertnotice
   WHERE state = 'pending' AND next_attempt_at <= statement_timestamp()
   ORDER BY next_attempt_at LIMIT 1 FOR UPDATE SKIP LOCKED)
UPDATE operations_alertnotice AS n
   SET attempts = attempts + 1, next_attempt_at = clock_timestamp() + make_interval(secs => %(lease)s)
  FROM due, operations_alert AS a
 WHERE n.id = due.id AND a.id = n.alert_id
RETURNING n.id, n.kind, n.channel, n.attempts, a.key, a.source, a.level, a.title, a.message, a.raised_at, a.ended_at
"""
SETTLE_SQL: Final = """
UPDATE operations_alertnotice
   SET state = %(state)s, error = %(error)s,
       sent_at = CASE WHEN %(state)s = 'sent' THEN clock_timestamp() END,
       next_attempt_at = clock_timestamp() + make_interval(secs => %(wait)s)
 WHERE id = %(id)s AND attempts = %(attempts)s AND state = 'pending'
"""


def alerts_send_once(*, budget: float = 20.0) -> int:
    """Send what is due; how many went.

    Args:
        budget: seconds after which no further one is begun.

    Raises:
        django.db.Error: the database is in trouble.
    """
    config = alert_settings()
    ends, sent = time.monotonic() + budget, 0
    while time.monotonic() < ends:
        with connection.cursor() as cursor:
            cursor.execute(CLAIM_SQL, {"lease": config.timeout * 3 + 10})
            row = cursor.fetchone()
        if row is None:
            break
        key, kind, channel, attempts, *alert = row
        try:
            send(channel, Message(f"alert-notice-{key}", kind, *alert), config)
        except Exception as exc:  # noqa: BLE001 - whatever the other side does becomes a row that people see
            _settle(key, attempts, error=f"{type(exc).__name__}: {exc}")
            log.warning("alert_not_sent", notice=key, channel=channel, attempts=attempts, error=type(exc).__name__)
        else:
            _settle(key, attempts)
            sent += 1
    return sent


def _settle(key: int, attempts: int, *, error: str = "") -> None:
    state, wait = AlertNotice.State.SENT, 0.0
    if error:
        state = AlertNotice.State.FAILED if attempts >= MOST_ATTEMPTS else AlertNotice.State.PENDING
        wait = min(LONGEST_WAIT, 5.0 * 4 ** (attempts - 1))
    text = error.replace("\0", "")[:500]
    values: dict[str, Any] = {"id": key, "attempts": attempts, "state": state.value, "wait": wait, "error": text}
    with connection.cursor() as cursor:
        cursor.execute(SETTLE_SQL, values)
