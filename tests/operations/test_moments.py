"""What is over is looked up by an index, whatever is still in force."""

from __future__ import annotations

import pytest
from django.db import connection, transaction

from operations.idempotency.keys import CLEAN_SQL
from operations.logins import SWEEP_SQL

pytestmark = [pytest.mark.feature("C10", "A16"), pytest.mark.django_db]


@pytest.mark.parametrize(("statement", "column"), [(CLEAN_SQL, "expires_at"), (SWEEP_SQL, "window_ends_at")])
def test_the_moment_is_a_condition_of_the_index(statement: str, column: str) -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off")
        cursor.execute(f"EXPLAIN {statement}", {"limit": 100})
        plan = [line.strip() for (line,) in cursor.fetchall()]

    assert [line for line in plan if line.startswith("Index Cond") and column in line], "\n".join(plan)
