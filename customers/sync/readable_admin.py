"""Pages of the console that show what records say of people: the values are masked for those who may not read them."""

from __future__ import annotations

from typing import Any

from django.db.models import Model, QuerySet, Value
from django.http import HttpRequest

from operations.console import RecordAdmin
from outbox.masking import may_read_payload, payload_masked


class ReadableAdmin(RecordAdmin):
    """Base of those pages. Each row knows whether whoever asks may read it, for columns know nothing of the request."""

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        rows: QuerySet[Any] = super().get_queryset(request).annotate(readable=Value(may_read_payload(request)))
        return rows

    @staticmethod
    def read(row: Model, value: Any) -> Any:
        """The value, masked unless the row is readable."""
        return value if getattr(row, "readable", False) else payload_masked(value)
