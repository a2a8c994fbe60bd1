"""Pages of the console that show what records say of people: the values are masked for those who may not read them."""

from __future__ import annotations

from typing import Any

from django.db.models import Model, QuerySet, Value
from django.http import HttpRequest
from django.utils.safestring import SafeString

from customers.models import Customer
from operations.console import RecordAdmin
from operations.page_values import NOTHING, record_link
from outbox.masking import may_read_payload, payload_masked


class ReadableAdmin(RecordAdmin):
    """Base of those pages. Each row knows what whoever asks may read of it, for columns know nothing of the request."""

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        may = {"readable": may_read_payload(request), "named": request.user.has_perm("customers.view_customer")}
        rows: QuerySet[Any] = super().get_queryset(request).annotate(**{key: Value(one) for key, one in may.items()})
        return rows

    @staticmethod
    def read(row: Model, value: Any) -> Any:
        """The value, masked unless the row is readable."""
        return value if getattr(row, "readable", False) else payload_masked(value)

    @staticmethod
    def whose(row: Model, customer: Customer | None) -> SafeString | str:
        """A link to a customer by name; for those who may not see customers the id alone."""
        if customer is None:
            return NOTHING
        return record_link(customer) if getattr(row, "named", False) else str(customer.pk)
