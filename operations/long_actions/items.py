"""The items of an operation as rows: written down in pages, taken in order, and what became of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import orjson
from django.db import connection
from django.db.models import QuerySet

from operations.long_actions.errors import LeaseLost
from operations.long_actions.kinds import Item, Kind, NewItem, Outcome
from operations.models import ItemState, Operation, OperationItem

PAGE: Final = 5_000

# One page of items, from the kind's own SELECT, in its order; how many there were, how many of them are new, and the
# last key. A page that is written down twice adds nothing, by the unique constraint.
COLLECT_SQL: Final = """
WITH page AS MATERIALIZED (SELECT key, data, row_number() OVER () AS number FROM (/* select */) AS found),
     added AS (
    INSERT INTO operations_item (operation_id, key, data)
    SELECT %(operation_id)s, key, data FROM page ORDER BY number
    ON CONFLICT (operation_id, key) DO NOTHING RETURNING 1)
SELECT (SELECT count(*) FROM page), (SELECT count(*) FROM added),
       (SELECT key FROM page ORDER BY number DESC LIMIT 1)
"""
GIVEN_SELECT: Final = """
SELECT * FROM unnest(%(keys)s::text[], %(data)s::jsonb[]) WITH ORDINALITY AS given (key, data, place) ORDER BY place
"""
COLLECTED_SQL: Final = """
UPDATE operations_operation
   SET items = items + %(added)s, collected = %(last)s, collected_through = %(through)s,
       updated_at = clock_timestamp()
 WHERE id = %(id)s AND lease_token = %(token)s
"""
START_SQL: Final = """
UPDATE operations_item SET state = 'started', attempts = attempts + 1 WHERE id = ANY (%(ids)s)
"""
# Items that others led to. One that is named again, by a worker that repeats what another one did, adds nothing.
ADD_SQL: Final = """
INSERT INTO operations_item (operation_id, key, data)
SELECT %(operation_id)s, key, data
  FROM unnest(%(keys)s::text[], %(data)s::jsonb[]) WITH ORDINALITY AS given (key, data, place) ORDER BY place
ON CONFLICT (operation_id, key) DO NOTHING
"""
SETTLE_SQL: Final = """
UPDATE operations_item AS i
   SET state = o.state, code = o.code, message = o.message,
       attempts = greatest(i.attempts, 1),
       finished_at = CASE WHEN o.state = 'waiting' THEN NULL ELSE clock_timestamp() END
  FROM unnest(%(ids)s::bigint[], %(states)s::text[], %(codes)s::text[], %(messages)s::text[])
       AS o (id, state, code, message)
 WHERE i.id = o.id AND i.operation_id = %(operation_id)s
"""


def items_collect(operation: Operation, kind: Kind, *, token: int) -> int:
    """Write down the next page of items, in the transaction under way; how many were on it.

    Raises:
        LeaseLost: another worker took the operation.
    """
    after = operation.collected_through or kind.before_first
    query = kind.items_query(operation.filter)
    values: dict[str, Any] = {"operation_id": operation.pk}
    if query is not None:
        select, parameters = query.sql, {**query.parameters, "after": after, "limit": PAGE}
    else:
        found = kind.items(operation.filter, after=after, limit=PAGE)
        select, parameters = GIVEN_SELECT, {"keys": [one.key for one in found], "data": [_json(one) for one in found]}
    with connection.cursor() as cursor:
        cursor.execute(COLLECT_SQL.replace("/* select */", select), {**values, **parameters})
        count, added, last_key = cursor.fetchone()
        cursor.execute(
            COLLECTED_SQL,
            {
                "id": operation.pk,
                "token": token,
                "added": added,
                "last": count < PAGE,
                "through": last_key if count else operation.collected_through,
            },
        )
        if cursor.rowcount != 1:
            raise LeaseLost
    return int(count)


def items_next(operation: Operation, limit: int) -> list[OperationItem]:
    """The next items that were never begun, in order."""
    return list(_of(operation).filter(pk__gt=operation.begun_through).order_by("pk")[:limit])


def items_in(operation: Operation, state: ItemState, limit: int) -> list[OperationItem]:
    """Items in flight: started or waiting, in order."""
    return list(_of(operation).filter(state=state).order_by("pk")[:limit])


def items_start(rows: Sequence[OperationItem]) -> None:
    """Mark items as started, once more."""
    with connection.cursor() as cursor:
        cursor.execute(START_SQL, {"ids": [row.pk for row in rows]})
    for row in rows:
        row.attempts += 1


def items_settle(operation: Operation, outcomes: Sequence[Outcome]) -> None:
    """Write down what became of items."""
    with connection.cursor() as cursor:
        cursor.execute(
            SETTLE_SQL,
            {
                "operation_id": operation.pk,
                "ids": [one.item_id for one in outcomes],
                "states": [one.state.value for one in outcomes],
                "codes": [_plain(one.code, 100) for one in outcomes],
                "messages": [_plain(one.message, 1_000) for one in outcomes],
            },
        )


def items_add(operation: Operation, items: Sequence[NewItem]) -> int:
    """Write down items that others led to, in the transaction under way; how many are new."""
    if not items:
        return 0
    values: dict[str, Any] = {"operation_id": operation.pk, "keys": [one.key for one in items]}
    values["data"] = [_json(one) for one in items]
    with connection.cursor() as cursor:
        cursor.execute(ADD_SQL, values)
        return int(cursor.rowcount)


def items_given(operation: Operation, rows: Sequence[OperationItem]) -> list[Item]:
    """The rows as a kind gets them."""
    return [
        Item(row.pk, row.key, row.data, max(1, row.attempts), f"operation-{operation.pk}-item-{row.pk}") for row in rows
    ]


def _of(operation: Operation) -> QuerySet[OperationItem]:
    return OperationItem.objects.filter(operation_id=operation.pk)


def _json(item: NewItem) -> str | None:
    return None if item.data is None else orjson.dumps(item.data).decode()


def _plain(text: str, length: int) -> str:
    return text.replace("\0", "").encode(errors="replace").decode()[:length]
