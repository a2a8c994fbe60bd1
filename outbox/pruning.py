"""Removing rows that are older than they are kept, in small batches, each in a transaction of its own."""

from __future__ import annotations

import time
from functools import partial
from typing import Final

import structlog
from django.db import connection

from dbresilience.transactions import run_in_transaction
from outbox.conf import retention_settings
from outbox.consuming.conf import consumer_settings

log = structlog.get_logger(__name__)

BATCH: Final = 5_000

# Attempts, history and replacements were written in the order of their ids: the first ids are the oldest ones.
_OLDEST: Final = """
WITH oldest AS (SELECT id, {moment} AS moment FROM {table} ORDER BY id LIMIT %(batch)s),
gone AS (
  DELETE FROM {table} WHERE id IN (
    SELECT id FROM oldest WHERE moment < clock_timestamp() - %(days)s * interval '1 day') RETURNING 1
)
SELECT count(*) FROM gone
"""
ATTEMPTS_SQL: Final = _OLDEST.format(table="outbox_attempt", moment="started_at")
# The newest of each subscriber stays: the history goes on from it.
WATERMARKS_SQL: Final = """
WITH oldest AS (SELECT id, subscription_id, position, passed_at FROM outbox_watermark ORDER BY id LIMIT %(batch)s),
gone AS (
  DELETE FROM outbox_watermark WHERE id IN (
    SELECT o.id FROM oldest o
     WHERE o.passed_at < clock_timestamp() - %(days)s * interval '1 day'
       AND EXISTS (SELECT 1 FROM outbox_watermark n
                    WHERE n.subscription_id = o.subscription_id AND n.position > o.position)) RETURNING 1
)
SELECT count(*) FROM gone
"""
REPLACEMENTS_SQL: Final = _OLDEST.format(table="outbox_replacement", moment="created_at")
# By the index of what is resolved. The moment is read once: for the bare function, all that is kept would be looked at.
DELIVERIES_SQL: Final = """
WITH gone AS (
  DELETE FROM outbox_delivery WHERE id IN (
    SELECT id FROM outbox_delivery WHERE state = 'resolved'
       AND resolved_at < (SELECT clock_timestamp()) - %(days)s * interval '1 day' ORDER BY resolved_at LIMIT %(batch)s)
  RETURNING 1
)
SELECT count(*) FROM gone
"""
# By the indexes of what was handled and of what is resolved.
INBOX_SQL: Final = """
WITH gone AS (
  DELETE FROM outbox_inbox WHERE (consumer_group, event_id) IN (
    SELECT consumer_group, event_id FROM outbox_inbox
     WHERE outcome IN ('success', 'ignored')
       AND handled_at < (SELECT clock_timestamp()) - %(days)s * interval '1 day' ORDER BY handled_at LIMIT %(batch)s)
  RETURNING 1
)
SELECT count(*) FROM gone
"""
PARKED_SQL: Final = """
WITH gone AS (
  DELETE FROM outbox_inbox_parked WHERE id IN (
    SELECT id FROM outbox_inbox_parked WHERE state = 'resolved'
       AND resolved_at < (SELECT clock_timestamp()) - %(days)s * interval '1 day' ORDER BY resolved_at LIMIT %(batch)s)
  RETURNING 1
)
SELECT count(*) FROM gone
"""
# The trigger that keeps attempts append-only lets retention through, which says so.
RETENTION_SQL: Final = "SET LOCAL zenskar.attempt_retention = 'on'"


def rows_prune(*, seconds: float = 30.0) -> dict[str, int]:
    """Remove what is older than it is kept; how many rows of each table.

    Args:
        seconds: begin no further batch after that long; the rest is for the next time.

    Raises:
        ImproperlyConfigured: a setting is not valid.
    """
    config, inbox = retention_settings(), consumer_settings().inbox_retention
    ends = time.monotonic() + seconds
    removed = {}
    for name, sql, days in (
        ("attempts", ATTEMPTS_SQL, config.attempts),
        ("deliveries", DELIVERIES_SQL, config.deliveries),
        ("replacements", REPLACEMENTS_SQL, config.deliveries),
        ("watermarks", WATERMARKS_SQL, config.watermarks),
        ("inbox", INBOX_SQL, inbox),
        ("consumed", PARKED_SQL, inbox),
    ):
        removed[name] = 0
        while time.monotonic() < ends:
            count = run_in_transaction(partial(_remove, sql, days))
            removed[name] += count
            if count < BATCH:
                break
    if any(removed.values()):
        log.info("outbox_rows_pruned", **removed)
    return removed


def _remove(sql: str, days: float) -> int:
    with connection.cursor() as cursor:
        cursor.execute(RETENTION_SQL)
        cursor.execute(sql, {"days": days, "batch": BATCH})
        return int(cursor.fetchone()[0])


def rows_prunable() -> dict[str, int]:
    """How many rows of each table the next run would remove, counted up to a million."""
    config, inbox = retention_settings(), consumer_settings().inbox_retention
    counts = {}
    with connection.cursor() as cursor:
        for name, table, condition, days in (
            ("attempts", "outbox_attempt", "started_at", config.attempts),
            ("deliveries", "outbox_delivery", "state = 'resolved' AND resolved_at", config.deliveries),
            ("replacements", "outbox_replacement", "created_at", config.deliveries),
            ("watermarks", "outbox_watermark", "passed_at", config.watermarks),
            ("inbox", "outbox_inbox", "outcome IN ('success', 'ignored') AND handled_at", inbox),
            ("consumed", "outbox_inbox_parked", "state = 'resolved' AND resolved_at", inbox),
        ):
            cursor.execute(
                f"SELECT count(*) FROM (SELECT 1 FROM {table} WHERE {condition}"  # noqa: S608 - constants only
                " < clock_timestamp() - %s * interval '1 day' LIMIT 1000000) x",
                [days],
            )
            counts[name] = int(cursor.fetchone()[0])
    return counts
