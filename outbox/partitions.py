"""Partitions of the event and log tables, made ahead of time.

Partition ``n`` of a table holds the ids (positions) from n times SIZE on. Relays make the next few long before they are
needed. Publishing never depends on it: what finds no partition goes to the default one of the event table. The log
table has none (rows of a default partition would have to be merged into every ordered read); the sequencer makes the
partition that it misses, and nobody waits for the sequencer.
"""

from __future__ import annotations

from typing import Any, Final

import structlog
from django.db import OperationalError, transaction
from django.db.utils import IntegrityError

log = structlog.get_logger(__name__)

SIZE: Final = 10_000_000
AHEAD: Final = 3

# (table, key column, sequence). Of the log, each partition gets a unique index on event_id: an event has one place.
# PostgreSQL cannot hold that over all partitions, since event_id is no part of the partition key. It need not: an
# event gets its place by the deletion of its row in outbox_unsequenced, which happens once.
_TABLES: Final = (
    ("outbox_event", "id", "outbox_event_id_seq", ""),
    ("outbox_log", "position", "outbox_log_position_seq", "CREATE UNIQUE INDEX ON {name} (event_id);"),
)

# Makes one partition. Attaching, other than CREATE TABLE … PARTITION OF, lets others read and write the table
# meanwhile. It waits for the default partition's lock at most a second, for whoever comes after it waits as well.
_MAKE_SQL: Final = """
SET LOCAL lock_timeout = '1s';
CREATE TABLE {name} (LIKE {table} INCLUDING DEFAULTS INCLUDING CONSTRAINTS);
{indexes}
ALTER TABLE {table} ATTACH PARTITION {name} FOR VALUES FROM ({start}) TO ({end});
"""


def partitions_make(connection: Any, *, ahead: int = AHEAD, size: int = SIZE) -> int:
    """Make the partitions that hold the next numbers and ``ahead`` more, where they are missing.

    Args:
        connection: a Django connection.
        ahead: partitions beyond the one in use.
        size: numbers per partition; for tests.

    Returns:
        How many were made. One that cannot be made now (its table is locked; its rows are in the default partition
        already) is left out, and tried again by the next call.
    """
    made = 0
    for table, _, sequence, indexes in _TABLES:
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT last_value FROM {sequence}")  # noqa: S608 - our own constant
            current = cursor.fetchone()[0] // size
            cursor.execute(
                "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid"
                " WHERE i.inhparent = %s::regclass",
                [table],
            )
            existing = {row[0] for row in cursor.fetchall()}
        for number in range(current, current + ahead + 1):
            name = f"{table}_{number}"
            if name not in existing:
                made += _make(connection, table, name, indexes.format(name=name), number * size, size)
    return made


def _make(connection: Any, table: str, name: str, indexes: str, start: int, size: int) -> int:
    statement = _MAKE_SQL.format(table=table, name=name, indexes=indexes, start=start, end=start + size)
    try:
        with transaction.atomic(using=connection.alias), connection.cursor() as cursor:
            cursor.execute(statement)
    except (OperationalError, IntegrityError) as exc:
        log.warning("partition_not_made", partition=name, error=type(exc).__name__)
        return 0
    except Exception as exc:
        # Another process made it at the same moment: duplicate_table, or its type's name in the catalogue.
        if getattr(exc.__cause__, "sqlstate", None) in ("42P07", "23505"):
            return 0
        raise
    log.info("partition_made", partition=name)
    return 1
