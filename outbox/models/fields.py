"""A JSON column that keeps its text."""

from __future__ import annotations

from typing import Any

from django.db import models


class JSONTextField(models.TextField):  # type: ignore[type-arg]
    """Text in a ``json`` column: checked by PostgreSQL, given back byte by byte as it was written.

    Events are handed on as they are, thousands a second; ``jsonb`` would be taken apart on the way in, put together
    again on the way out, and its keys would change their order.
    """

    def db_type(self, connection: Any) -> str:
        return "json"

    def select_format(self, compiler: Any, sql: str, params: Any) -> tuple[str, Any]:
        return f"{sql}::text", params
