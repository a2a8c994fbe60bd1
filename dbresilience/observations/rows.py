"""Adding what was counted to the rows that all processes share."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any, Final

from psycopg.rows import tuple_row

from dbresilience.catalogue import constraint_columns
from dbresilience.monitor.connection import MonitorConnection
from dbresilience.observations.pending import TallyKey, ViolationKey

# Serves tallies_write. Sorted by the unique key, so that two processes lock rows in the same order.
TALLY_SQL: Final = """
INSERT INTO dbresilience_tally AS t (span, name, key, count, microseconds, slowest)
SELECT to_timestamp(u.span), u.name, u.key, u.count, u.microseconds, u.slowest
  FROM unnest(%(spans)s::bigint[], %(names)s::text[], %(keys)s::text[],
              %(counts)s::bigint[], %(microseconds)s::bigint[], %(slowest)s::bigint[])
       AS u(span, name, key, count, microseconds, slowest)
 ORDER BY u.name, u.span, u.key
ON CONFLICT (name, span, key) DO UPDATE SET
    count = t.count + excluded.count, microseconds = t.microseconds + excluded.microseconds,
    slowest = greatest(t.slowest, excluded.slowest)
"""
# Serves violations_write; sorted by its caller for the same reason.
VIOLATION_SQL: Final = """
INSERT INTO dbresilience_violationtally AS t (span, kind, "table", "constraint", columns, count, last_at)
VALUES (%(span)s, %(kind)s, %(table)s, %(constraint)s, %(columns)s, %(count)s, clock_timestamp())
ON CONFLICT (span, kind, "table", "constraint", columns) DO UPDATE SET
    count = t.count + excluded.count, last_at = excluded.last_at
"""


def tallies_write(connection: MonitorConnection, tallies: Mapping[TallyKey, Sequence[int]]) -> int:
    """Add counts; returns the number of rows added or added to."""
    if not tallies:
        return 0
    keys = list(tallies)
    values = [tallies[key] for key in keys]
    parameters = {
        "spans": [span for span, _, _ in keys],
        "names": [name for _, name, _ in keys],
        "keys": [key for _, _, key in keys],
        "counts": [count for count, _, _ in values],
        "microseconds": [microseconds for _, microseconds, _ in values],
        "slowest": [slowest for _, _, slowest in values],
    }
    return connection.execute(TALLY_SQL, parameters).rowcount


def violations_write(connection: MonitorConnection, violations: Mapping[ViolationKey, int]) -> int:
    """Add violations with the columns that the catalogue has for them; returns the number of rows."""
    rows = [
        {
            "span": dt.datetime.fromtimestamp(key.span, dt.UTC),
            "kind": key.kind,
            "table": key.table if key.schema in ("", "public") else f"{key.schema}.{key.table}",
            "constraint": key.constraint,
            "columns": list(_columns(connection, key)),
            "count": count,
        }
        for key, count in violations.items()
    ]
    rows.sort(key=lambda row: (row["span"], row["kind"], row["table"], row["constraint"], row["columns"]))
    with connection.cursor() as cursor:
        for row in rows:
            cursor.execute(VIOLATION_SQL, row)
    return len(rows)


def _columns(connection: MonitorConnection, key: ViolationKey) -> tuple[str, ...]:
    if key.column:
        return (key.column,)

    def query(sql: str, values: Mapping[str, Any]) -> Sequence[tuple[Any, ...]]:
        with connection.cursor(row_factory=tuple_row) as cursor:
            return cursor.execute(sql, values).fetchall()

    return constraint_columns(query, schema=key.schema, table=key.table, constraint=key.constraint)
