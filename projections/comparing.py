"""Comparing: the build that is being filled and the one that readers see, row by row at one position of the log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from django.db import connection

from dbresilience.transactions import run_in_transaction
from projections.builds import HeldBuild, build_release
from projections.catching_up import FREEZE_SECONDS, NotCaughtUp, build_catch_up
from projections.models import Build, BuildState
from projections.projection import Table
from projections.rebuilding import build_in
from projections.registry import projection_named

# Whoever holds them loses both builds; a batch that is under way is waited for.
SEIZE_SQL: Final = """
UPDATE projections_build
   SET owner = 'comparison', epoch = epoch + 1, lease_until = clock_timestamp() + %(seconds)s * interval '1 second'
 WHERE id = %(build)s RETURNING epoch, cursor
"""
# Both sides as a whole, by key: three counts in one pass.
COMPARE_SQL: Final = """
SELECT count(*) FILTER (WHERE b.here IS NULL), count(*) FILTER (WHERE a.here IS NULL),
       count(*) FILTER (WHERE a.here AND b.here AND ({differs})), count(*) FILTER (WHERE b.here)
  FROM (SELECT *, true AS here FROM "{old}") a
  FULL JOIN (SELECT *, true AS here FROM "{new}") b USING ({key})
"""
COLUMNS_SQL: Final = """
SELECT a.attname FROM pg_attribute a JOIN pg_attribute b ON b.attname = a.attname AND b.atttypid = a.atttypid
 WHERE a.attrelid = %(old)s::regclass AND b.attrelid = %(new)s::regclass
   AND a.attnum > 0 AND b.attnum > 0 AND NOT a.attisdropped AND NOT b.attisdropped ORDER BY a.attnum
"""
# By projections_failure_active_uniq, and for each by the index of its event.
FAILING_SQL: Final = """
SELECT count(*) FROM projections_failure n
 WHERE n.build_id = %(new)s AND n.state IN ('retrying', 'manual')
   AND NOT EXISTS (SELECT FROM projections_failure o
                    WHERE o.event_id = n.event_id AND o.build_id = %(old)s AND o.state IN ('retrying', 'manual'))
"""


@dataclass(frozen=True, slots=True)
class TableComparison:
    """How one table of two builds differs.

    Attributes:
        table: the view's name.
        rows: rows of the new one.
        missing: rows of the old one that the new one does not have.
        added: rows that only the new one has.
        different: rows of both that differ in a column that both have.
    """

    table: str
    rows: int
    missing: int
    added: int
    different: int

    @property
    def is_same(self) -> bool:
        return not (self.missing or self.added or self.different)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two builds at one position of the log.

    Attributes:
        old: the build that readers see.
        new: the one that is to take its place.
        position: of the log.
        tables: table by table.
        failing: events that only the new one cannot apply; aggregates of it wait behind them.
    """

    old: int
    new: int
    position: int
    tables: list[TableComparison]
    failing: int = 0

    @property
    def is_same(self) -> bool:
        return not self.failing and all(table.is_same for table in self.tables)


def rebuild_compare(*, name: str) -> Comparison:
    """Compare the build that is being filled with the one that readers see, at one position of the log.

    Both are taken from their runners and brought to one position; then a snapshot is taken, and the runners go on with
    the next lease while the snapshot is read.

    Raises:
        NoSuchBuild: there is nothing to compare.
        NotCaughtUp: the new one is too far behind.
    """
    old, new = build_in(name, BuildState.LIVE), build_in(name, BuildState.BUILDING)
    held: list[HeldBuild] = []

    def freeze() -> list[HeldBuild]:
        with connection.cursor() as cursor:
            found = []
            for build in sorted((old, new), key=lambda one: one.pk):
                cursor.execute(SEIZE_SQL, {"build": build.pk, "seconds": FREEZE_SECONDS})
                epoch, place = cursor.fetchone()
                projection = projection_named(name, build.version)
                found.append(HeldBuild(build.pk, projection, epoch, place, 0))
            build_catch_up(min(found, key=lambda one: one.cursor), max(one.cursor for one in found))
        return found

    def look() -> Comparison:
        places = set(Build.objects.filter(pk__in=[old.pk, new.pk]).values_list("cursor", flat=True))
        if len(places) != 1:
            raise NotCaughtUp("They moved apart before they could be compared. Try again.")
        tables = projection_named(name, new.version).tables
        with connection.cursor() as cursor:
            cursor.execute(FAILING_SQL, {"old": old.pk, "new": new.pk})
            failing = cursor.fetchone()[0]
        compared = [_compare(table, old.pk, new.pk) for table in tables]
        return Comparison(old.pk, new.pk, places.pop(), compared, failing)

    held = run_in_transaction(freeze)
    try:
        return run_in_transaction(look, isolation="repeatable read", read_only=True, repeatable=False)
    finally:
        for one in held:
            build_release(one)


def _compare(table: Table, old: int, new: int) -> TableComparison:
    names = table.of_build(old), table.of_build(new)
    with connection.cursor() as cursor:
        cursor.execute(COLUMNS_SQL, {"old": names[0], "new": names[1]})
        both = [row[0] for row in cursor.fetchall()]
        compared = [column for column in table.columns if column in both]
        differs = " OR ".join(f'a."{column}" IS DISTINCT FROM b."{column}"' for column in compared) or "false"
        key = ", ".join(f'"{column}"' for column in table.key)
        cursor.execute(COMPARE_SQL.format(old=names[0], new=names[1], key=key, differs=differs))
        missing, added, different, rows = cursor.fetchone()
    return TableComparison(table.name, rows, missing, added, different)
