"""Migrations that a service with ten million rows can run while it serves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.postgres import operations as patient
from django.db import migrations, models
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.operations.base import Operation

OURS = {"outbox", "operations", "customers", "projections", "dbresilience", "examples", "zenskar"}
# Older than the first release: nobody has rows there.
BEFORE = {("outbox", "0003_failures")}


def troubles(migration: migrations.Migration) -> Iterator[str]:
    """What of a migration holds up everybody who reads or writes a table that is there already."""
    made: set[str] = set()
    for one in _flat(migration.operations):
        if isinstance(one, migrations.CreateModel):
            made.add(one.name.lower())
        elif getattr(one, "model_name", "").lower() not in made and (said := _trouble(one, migration.atomic)):
            yield f"{migration.app_label} {migration.name}: {said}"


def _trouble(one: Operation, atomic: bool) -> str:
    if isinstance(one, patient.AddIndexConcurrently | patient.RemoveIndexConcurrently):
        return "atomic = False is missing" if atomic else ""
    if isinstance(one, patient.AddConstraintNotValid):
        return ""
    if isinstance(one, migrations.AddIndex | migrations.RemoveIndex):
        return f"build or remove the index of {one.model_name} concurrently (django.contrib.postgres.operations)"
    if isinstance(one, migrations.AddConstraint):
        if isinstance(one.constraint, models.CheckConstraint):
            return f"{one.constraint.name}: AddConstraintNotValid, then ValidateConstraint in a migration of its own"
        return f"{one.constraint.name}: build its index concurrently, then make the constraint of it"
    if isinstance(one, migrations.RunSQL):
        text = " ".join(str(one.sql).upper().split())
        for word in ("CREATE INDEX", "CREATE UNIQUE INDEX", "DROP INDEX"):
            if f"{word} " in text.replace(f"{word} CONCURRENTLY", "") and "CREATE TABLE" not in text:
                return f"{word} without CONCURRENTLY"
    return ""


def _flat(operations: Any) -> Iterator[Operation]:
    for one in operations:
        if isinstance(one, migrations.SeparateDatabaseAndState):
            yield from _flat(one.database_operations)
        else:
            yield one


def of_ours() -> list[migrations.Migration]:
    loaded = MigrationLoader(None).disk_migrations
    return [one for _, one in sorted(loaded.items()) if one.__module__.partition(".")[0] in OURS]


def test_they_lock_no_table_that_is_in_use() -> None:
    found = [said for one in of_ours() if (one.app_label, one.name) not in BEFORE for said in troubles(one)]

    assert len(of_ours()) > 30
    assert found == []


INDEX = models.Index(fields=["name"], name="i")
CHECK = models.CheckConstraint(condition=models.Q(name="x"), name="c")
UNIQUE = models.UniqueConstraint(fields=["name"], name="u")


@pytest.mark.parametrize(
    ("operations", "atomic", "said"),
    [
        ([migrations.AddIndex("thing", INDEX)], True, "concurrently"),
        ([migrations.RemoveIndex("thing", "i")], True, "concurrently"),
        ([patient.AddIndexConcurrently("thing", INDEX)], True, "atomic = False"),
        ([patient.AddIndexConcurrently("thing", INDEX)], False, ""),
        ([migrations.AddConstraint("thing", CHECK)], True, "NotValid"),
        ([patient.AddConstraintNotValid("thing", CHECK)], True, ""),
        ([migrations.AddConstraint("thing", UNIQUE)], True, "concurrently"),
        ([migrations.CreateModel("Thing", []), migrations.AddIndex("thing", INDEX)], True, ""),
        ([migrations.RunSQL("CREATE INDEX i ON thing (name)")], True, "CONCURRENTLY"),
        ([migrations.RunSQL("CREATE INDEX CONCURRENTLY i ON thing (name)")], False, ""),
        ([migrations.SeparateDatabaseAndState([migrations.AddIndex("thing", INDEX)])], True, "concurrently"),
    ],
)
def test_it_knows_what_locks(operations: list[Operation], atomic: bool, said: str) -> None:
    migration = type("Migration", (migrations.Migration,), {"operations": operations, "atomic": atomic})("m", "app")

    (found,) = [*troubles(migration)] or [""]

    assert (said in found) if said else found == ""
