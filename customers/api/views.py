"""Customers over HTTP."""

from __future__ import annotations

import re
from typing import Any, Final
from uuid import UUID

from django.http import HttpResponseBase
from rest_framework import status
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from customers.api import descriptions
from customers.api.etags import etag, is_unchanged, versions_of_if_match
from customers.api.filters import customer_query
from customers.api.pages import page_of
from customers.api.protection import is_protected, protected_response
from customers.api.serializers import (
    UNCACHED,
    CustomerChange,
    CustomerCreate,
    CustomerInput,
    CustomerReplace,
    customer_representation,
)
from customers.errors import CustomerDeleted, CustomerError, CustomerNotFound
from customers.models import Customer, Saga
from customers.reading import customer_read
from customers.sagas.beginning import Wanted
from customers.services import customer_create, customer_delete, customer_update
from operations.errors import ScopeMissing
from operations.idempotency.decorators import idempotent
from operations.permissions import require, scopes_of
from operations.scopes import Scope

_UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z", re.IGNORECASE)


def _subject(body: dict[str, Any]) -> str:
    """Whom an answer speaks of."""
    return f"customer:{body['id']}"


def require_deleted(request: Request) -> None:
    """Refuse those who may not see deleted customers.

    Raises:
        ScopeMissing: without the scope.
    """
    if Scope.OPERATIONS_READ not in scopes_of(request):
        raise ScopeMissing(f"Deleted customers need the scope {Scope.OPERATIONS_READ}.")


class CustomerView(APIView):
    """Base of the views of customers."""

    required_scopes = {"read": Scope.CUSTOMERS_READ, "write": Scope.CUSTOMERS_WRITE}


@descriptions.customers
class CustomerListView(CustomerView):
    """All customers."""

    def get(self, request: Request) -> Response:
        query = customer_query(request.query_params, may_see_deleted=lambda: require_deleted(request))
        page = page_of(
            query.customers.prefetch_related("sync_states"),
            ordering=query.ordering,
            cursor=query.cursor,
            size=query.page_size,
        )
        return Response(
            {
                "next": _link(request, page.next),
                "previous": _link(request, page.previous),
                "results": [customer_representation(customer) for customer in page.customers],
            },
            headers=UNCACHED,
        )

    @idempotent(subject=_subject, savepoints=False, unless=is_protected)
    def post(self, request: Request) -> HttpResponseBase:
        require(request, "customers.add_customer")
        values = _validated(CustomerCreate(data=request.data))
        if is_protected(request):
            return protected_response(self, request, Wanted(action=Saga.Action.CREATE, values=values))
        customer = customer_create(**values, origin="api")
        place = request.build_absolute_uri(f"{request.path.removesuffix('/')}/{customer.pk}/")
        # Nobody has looked at a customer of this moment yet: there are no states to fetch.
        body = customer_representation(customer, states=())
        return _answer(customer, body, status=status.HTTP_201_CREATED, headers={"Location": place})


@descriptions.customer
class CustomerDetailView(CustomerView):
    """One customer."""

    def get(self, request: Request, customer_id: str) -> Response:
        found = customer_read(id_of(customer_id))
        if found is None:
            raise CustomerNotFound
        customer, states = found
        if customer.deleted_at is not None:
            raise CustomerDeleted
        answer = _answer(customer, customer_representation(customer, states=states))
        if is_unchanged(request.headers.get("If-None-Match"), answer["ETag"]):
            return Response(status=status.HTTP_304_NOT_MODIFIED, headers={"ETag": answer["ETag"], **UNCACHED})
        return answer

    @idempotent(subject=_subject, savepoints=False, unless=is_protected)
    def put(self, request: Request, customer_id: str) -> HttpResponseBase:
        return self._update(request, customer_id, CustomerReplace(data=request.data))

    @idempotent(subject=_subject, savepoints=False, unless=is_protected)
    def patch(self, request: Request, customer_id: str) -> HttpResponseBase:
        return self._update(request, customer_id, CustomerChange(data=request.data))

    @idempotent(savepoints=False, unless=is_protected)
    def delete(self, request: Request, customer_id: str) -> HttpResponseBase:
        require(request, "customers.delete_customer")
        versions = versions_of_if_match(request.headers.get("If-Match"))
        if is_protected(request):
            wanted = Wanted(action=Saga.Action.DELETE, customer_id=id_of(customer_id), if_version=versions)
            return protected_response(self, request, wanted)
        customer = customer_delete(customer_id=id_of(customer_id), if_version=versions, origin="api")
        return Response(status=status.HTTP_204_NO_CONTENT, headers=_event(customer))

    def _update(self, request: Request, customer_id: str, serializer: CustomerInput) -> HttpResponseBase:
        require(request, "customers.change_customer")
        found, changes = id_of(customer_id), _validated(serializer)
        versions = versions_of_if_match(request.headers.get("If-Match"))
        if is_protected(request):
            wanted = Wanted(action=Saga.Action.UPDATE, customer_id=found, values=changes, if_version=versions)
            return protected_response(self, request, wanted)
        customer = customer_update(customer_id=found, changes=changes, if_version=versions, origin="api")
        return _answer(customer)


def _validated(serializer: CustomerInput) -> dict[str, Any]:
    serializer.is_valid(raise_exception=True)
    values: dict[str, Any] = serializer.validated_data
    return values


def id_of(text: str, *, missing: type[CustomerError] = CustomerNotFound) -> UUID:
    """The id in an address.

    Args:
        missing: what is raised when it is none.
    """
    if not _UUID.match(text):
        raise missing()
    return UUID(text)


def _answer(
    customer: Customer,
    body: dict[str, Any] | None = None,
    *,
    status: int = status.HTTP_200_OK,
    headers: dict[str, str] | None = None,
) -> Response:
    body = body or customer_representation(customer)
    tag = etag(customer.version, body["integrations"])
    return Response(body, status=status, headers={"ETag": tag, **UNCACHED, **_event(customer), **(headers or {})})


def _event(customer: Customer) -> dict[str, str]:
    """The event of the change just made, for ``?wait_for=``; without a change there is nothing to wait for."""
    return {} if customer.event_id is None else {"X-Event-Id": str(customer.event_id)}


def _link(request: Request, cursor: str | None) -> str | None:
    if cursor is None:
        return None
    parameters = request.query_params.copy()
    parameters["cursor"] = cursor
    return request.build_absolute_uri(f"{request.path}?{parameters.urlencode()}")
