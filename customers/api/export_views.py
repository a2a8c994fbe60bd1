"""Customers' data to carry away: one person's as JSON, the list as CSV."""

from __future__ import annotations

from typing import Final

from django.http import HttpResponseBase, StreamingHttpResponse
from rest_framework.request import Request
from rest_framework.response import Response

from customers.api import descriptions
from customers.api.filters import customer_query
from customers.api.views import CustomerView, id_of, require_deleted
from customers.errors import InvalidQuery
from customers.exporting.documents import customer_export
from customers.exporting.lists import customers_csv
from operations.audit import actor_of, audit_record
from operations.errors import FieldError
from operations.negotiation import AnyFormat
from operations.permissions import require
from operations.scopes import Scope

_UNSTORED: Final = {"Cache-Control": "private, no-store"}
_OF_PAGES: Final = ("cursor", "page_size")


class ExportView(CustomerView):
    """Base of the views that carry data away."""

    required_scopes = {"read": Scope.CUSTOMERS_EXPORT}


@descriptions.export
class CustomerExportView(ExportView):
    """All data of one customer."""

    def get(self, request: Request, customer_id: str) -> Response:
        require(request, "customers.export_customer")
        return Response(
            customer_export(customer_id=id_of(customer_id), actor=actor_of(request)), headers=dict(_UNSTORED)
        )


@descriptions.export_list
class CustomersExportView(ExportView):
    """The list of customers; in one form, whatever is asked for."""

    content_negotiation_class = AnyFormat

    def get(self, request: Request) -> HttpResponseBase:
        require(request, "customers.export_customer")
        query = customer_query(request.query_params, may_see_deleted=lambda: require_deleted(request))
        if paged := [name for name in _OF_PAGES if name in request.query_params]:
            detail = "An export has no pages."
            raise InvalidQuery([FieldError(code="unknown_parameter", detail=detail, parameter=name) for name in paged])
        # By what it was narrowed, and never to whom.
        detail_of = {"filters": sorted(request.query_params)}
        audit_record(actor=actor_of(request), action="customers.exported", detail=detail_of)
        return StreamingHttpResponse(
            customers_csv(query.customers, ordering=query.ordering),
            content_type="text/csv; charset=utf-8",
            headers={"Content-Disposition": 'attachment; filename="customers.csv"', **_UNSTORED},
        )
