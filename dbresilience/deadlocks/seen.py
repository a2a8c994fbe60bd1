"""Turning what a victim saw into a row: who held what, who waited for what, with which statements."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from psycopg.types.json import Jsonb

from dbresilience.monitor.connection import MonitorConnection
from dbresilience.observations.pending import DeadlockSeen
from dbresilience.statements import normalised, table_of

# As in the server's detail: "Process 7 waits for ShareLock on transaction 9; blocked by process 8."
_WAIT: Final = re.compile(
    r"^\D*(?P<pid>\d+) \D+? (?P<mode>\w+Lock) \w+ (?P<object>.*?); .*?(?P<blocker>\d+)\.?$", re.MULTILINE
)
# "relation 16390 of database 16384", "tuple (0,1) of relation 16390 of database 16384".
_RELATION: Final = re.compile(r"relation (\d+)")
# 'while updating tuple (0,1) in relation "account"'.
_CONTEXT: Final = re.compile(r'in relation "([^"]+)"')

# Serves _names: tables by the numbers that the detail gives; an index stands for its table.
NAMES_SQL: Final = """
SELECT c.oid::bigint AS oid, coalesce(i.indrelid, c.oid)::regclass::text AS name
  FROM pg_class c LEFT JOIN pg_index i ON i.indexrelid = c.oid WHERE c.oid = ANY (%(oids)s::oid[])
"""
# Serves _others: what the sessions of the circle are running, if that began before the deadlock was seen: a later
# statement, or a later session with the same process id, had no part in it.
OTHERS_SQL: Final = """
SELECT a.query, (SELECT array_agg(DISTINCT c.relname::text) FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
                  WHERE l.pid = a.pid AND l.granted AND c.relkind IN ('r', 'p') AND l.mode <> 'AccessShareLock'
                    AND c.relnamespace <> 'pg_catalog'::regnamespace) AS tables,
       a.query_start < clock_timestamp() - make_interval(secs => %(age)s) AS is_same_statement
  FROM pg_stat_activity a
 WHERE a.pid = ANY (%(pids)s) AND a.datname = current_database()
   AND a.xact_start < clock_timestamp() - make_interval(secs => %(age)s)
 ORDER BY a.pid
"""
# Serves deadlocks_write.
INSERT_SQL: Final = """
INSERT INTO dbresilience_deadlock (at, tables, held_table, held_statement, waited_table, waited_statement,
                                   other_statement, fingerprint, processes, locks, code)
VALUES (%(at)s, %(tables)s, %(held_table)s, %(held_statement)s, %(waited_table)s, %(waited_statement)s,
        %(other_statement)s, %(fingerprint)s, %(processes)s, %(locks)s, %(code)s)
"""


@dataclass(frozen=True, slots=True)
class Wait:
    """One line of the server's detail.

    Attributes:
        pid: process that waited.
        mode: lock that it waited for, as ``ShareLock``.
        relation: number of the relation that the lock was on, or None when it was on a transaction.
        kind: what the lock was on: relation, tuple, transaction, advisory lock and so on.
        blocker: process that it waited for.
    """

    pid: int
    mode: str
    relation: int | None
    kind: str
    blocker: int


def waits_of(detail: str) -> list[Wait]:
    """The waits that a deadlock's detail tells of; the first one is the victim's."""
    found = []
    for match in _WAIT.finditer(detail):
        relation = _RELATION.search(match["object"])
        found.append(
            Wait(
                pid=int(match["pid"]),
                mode=match["mode"],
                relation=int(relation[1]) if relation else None,
                kind=re.sub(r"[\d\[\](),]+.*", "", match["object"]).strip(),
                blocker=int(match["blocker"]),
            )
        )
    return found


def deadlocks_write(connection: MonitorConnection, seen: Iterable[DeadlockSeen]) -> int:
    """Write each deadlock as a row; returns how many."""
    count = 0
    for deadlock in seen:
        connection.execute(INSERT_SQL, _row(connection, deadlock))
        count += 1
    return count


def _row(connection: MonitorConnection, seen: DeadlockSeen) -> dict[str, Any]:
    waits = waits_of(seen.detail)
    names = _names(connection, [wait.relation for wait in waits if wait.relation is not None])
    statements = [normalised(statement) for statement in seen.statements]
    waited_statement = statements[-1] if statements else ""
    waited_table = _waited_table(seen.context, waits, names) or table_of(waited_statement)
    others = _others(connection, seen, [wait.pid for wait in waits[1:]])
    other_statement = next((normalised(other["query"]) for other in others if other["is_same_statement"]), "")
    held_table, held_statement = _held(waits, names, other_statement, statements[:-1], waited_table)
    tables = sorted({table for table in (held_table, waited_table) if table})
    return {
        "at": seen.at,
        "tables": tables,
        "held_table": held_table,
        "held_statement": held_statement,
        "waited_table": waited_table,
        "waited_statement": waited_statement,
        "other_statement": other_statement,
        "fingerprint": fingerprint_of(tables, held_statement, waited_statement),
        "processes": max(2, len(waits)),
        "locks": Jsonb([{"mode": wait.mode, "on": names.get(wait.relation or 0, wait.kind)} for wait in waits]),
        "code": seen.code,
    }


def fingerprint_of(tables: Sequence[str], held_statement: str, waited_statement: str) -> str:
    """One text for deadlocks between the same statements on the same tables, whichever side was the victim."""
    parts = [*tables, *sorted((held_statement, waited_statement))]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _waited_table(context: str, waits: Sequence[Wait], names: Mapping[int, str]) -> str:
    if match := _CONTEXT.search(context):
        return match[1]
    return names.get(waits[0].relation or 0, "") if waits else ""


def _held(
    waits: Sequence[Wait], names: Mapping[int, str], other_statement: str, before: Sequence[str], waited_table: str
) -> tuple[str, str]:
    """What the victim had locked that the other side wanted, and the statement that locked it.

    The best witness is what the other side waited for; else it is one of the tables that the transaction had changed
    before: the earliest other than the one it waited for, or that very table.
    """
    locked = {table: statement for statement in reversed(before) if (table := table_of(statement))}
    wanted = [names[wait.relation or 0] for wait in waits[1:] if wait.relation in names]
    if not wanted and other_statement and table_of(other_statement):
        wanted = [table_of(other_statement)]
    for table in wanted:
        return table, locked.get(table, "")
    earliest = list(reversed(locked.items()))
    return next((pair for pair in earliest if pair[0] != waited_table), earliest[0] if earliest else ("", ""))


def _names(connection: MonitorConnection, oids: Sequence[int]) -> dict[int, str]:
    if not oids:
        return {}
    rows = connection.execute(NAMES_SQL, {"oids": list(oids)}).fetchall()
    return {row["oid"]: row["name"] for row in rows}


def _others(connection: MonitorConnection, seen: DeadlockSeen, pids: Sequence[int]) -> list[dict[str, Any]]:
    if not pids:
        return []
    age = time.monotonic() - seen.monotonic
    return connection.execute(OTHERS_SQL, {"pids": list(pids), "age": age}).fetchall()
