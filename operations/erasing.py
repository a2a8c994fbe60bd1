"""Erasing a person from what people wrote: audit entries, reasons and notes that quote them.

What was done, by whom and to what stays. Of the texts, those that hold one of the person's values go whole.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

import orjson
from django.db import connection

ERASED: Final = "Erased."

# What the trigger on the trail asks for; it lets an erasure change details alone.
ERASURE_SQL: Final = "SET LOCAL zenskar.erasure = 'on'"
# Operations and notes are few, and people name customers there as they like: all of them are read.
OPERATIONS_SQL: Final = """
UPDATE operations_operation
   SET reason = CASE WHEN lower(reason) LIKE ANY (%(values)s) THEN %(erased)s ELSE reason END,
       note = CASE WHEN lower(note) LIKE ANY (%(values)s) THEN %(erased)s ELSE note END
 WHERE lower(reason) LIKE ANY (%(values)s) OR lower(note) LIKE ANY (%(values)s) RETURNING id
"""
# Of items, those that did not go well say why; the partial index operations_item_odd holds no others.
ITEMS_SQL: Final = """
UPDATE operations_item SET message = %(erased)s
 WHERE NOT state IN ('pending', 'succeeded') AND lower(message) LIKE ANY (%(values)s)
"""
NOTES_SQL: Final = """
UPDATE operations_troublenote SET note = %(erased)s WHERE lower(note) LIKE ANY (%(values)s)
"""
# By the index of the target.
AUDIT_SQL: Final = """
SELECT id, detail FROM operations_auditentry WHERE target = ANY (%(targets)s) AND detail <> '{}'
"""
AUDIT_ERASE_SQL: Final = """
UPDATE operations_auditentry SET detail = %(detail)s::jsonb WHERE id = %(id)s
"""


def texts_erase(*, values: Collection[str], targets: Collection[str]) -> int:
    """Take a person out of notes, reasons and the audit trail's details, in the transaction under way.

    Args:
        values: what the person is known by, as name and e-mail; in any case.
        targets: of the audit entries that may speak of them, as ``customer:0190…``.

    Returns:
        Texts that were taken out.
    """
    words = sorted({value.lower() for value in values})
    if not words:
        return 0
    patterns = [f"%{_escaped(word)}%" for word in words]
    with connection.cursor() as cursor:
        cursor.execute(ERASURE_SQL)
        cursor.execute(OPERATIONS_SQL, {"values": patterns, "erased": ERASED})
        operations = [f"operation:{row[0]}" for row in cursor.fetchall()]
        cursor.execute(NOTES_SQL, {"values": patterns, "erased": ERASED})
        count = len(operations) + int(cursor.rowcount)
        cursor.execute(ITEMS_SQL, {"values": patterns, "erased": ERASED})
        count += int(cursor.rowcount)
        cursor.execute(AUDIT_SQL, {"targets": [*targets, *operations]})
        for entry_id, text in cursor.fetchall():
            detail = orjson.loads(text) if isinstance(text, str) else text
            left = _without(detail, words)
            if left != detail:
                cursor.execute(AUDIT_ERASE_SQL, {"id": entry_id, "detail": orjson.dumps(left).decode()})
                count += 1
    return count


def _without(value: Any, words: Collection[str]) -> Any:
    if isinstance(value, dict):
        return {key: _without(one, words) for key, one in value.items()}
    if isinstance(value, list):
        return [_without(one, words) for one in value]
    if isinstance(value, str) and any(word in value.lower() for word in words):
        return ERASED
    return value


def _escaped(word: str) -> str:
    return word.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
