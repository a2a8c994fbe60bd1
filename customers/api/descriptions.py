"""How the API's description (OpenAPI) shows the views of customers."""

from __future__ import annotations

from typing import Any, Final

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiResponse, extend_schema, extend_schema_view

from customers.api.pages import ORDERINGS, SIZE, SIZE_LARGEST
from customers.api.serializers import (
    CustomerChange,
    CustomerCreate,
    CustomerOutput,
    CustomerPage,
    CustomerReplace,
    ErasureInput,
    ErasureOutput,
)
from customers.models import SyncState

_TAGS: Final = ["customers"]
_ID: Final = OpenApiParameter("customer_id", OpenApiTypes.UUID, OpenApiParameter.PATH)
_IF_MATCH: Final = OpenApiParameter(
    "If-Match",
    str,
    OpenApiParameter.HEADER,
    description="The ETag of the customer that this change is made of; a stale one is answered with 412. The version "
    "alone is compared: a sync that moved on meanwhile does not make it stale.",
)
_IF_NONE_MATCH: Final = OpenApiParameter(
    "If-None-Match", str, OpenApiParameter.HEADER, description="An ETag; 304 when the representation is still that one."
)
_EVENT_ID: Final = OpenApiParameter(
    "X-Event-Id",
    int,
    OpenApiParameter.HEADER,
    response=[200, 201, 204],
    description="The event of this change; give it to a read model as wait_for. Absent when nothing was changed.",
)
_PROTECTED: Final = OpenApiParameter(
    "X-Use-Integrity-Protection",
    str,
    OpenApiParameter.HEADER,
    enum=["true", "false"],
    description="true: the answer comes when every integration has the change too, or when nobody has it: 502 (or 409, "
    "410) with what was undone, 504 with the address of the protected change when the time limit ends first.",
)
_FILTERS: Final = [
    OpenApiParameter("email", str, description="exactly this e-mail, in any case"),
    OpenApiParameter("name", str, description="names that begin so, in any case"),
    OpenApiParameter("created_after", OpenApiTypes.DATETIME, description="created then or later"),
    OpenApiParameter("created_before", OpenApiTypes.DATETIME, description="created earlier"),
    OpenApiParameter("updated_after", OpenApiTypes.DATETIME, description="changed last then or later"),
    OpenApiParameter("updated_before", OpenApiTypes.DATETIME, description="changed last earlier"),
    OpenApiParameter("sync_status", str, enum=SyncState.Status.values, description="status with an integration"),
    OpenApiParameter("integration", str, description="known to this integration, or in sync_status with it"),
    OpenApiParameter("include_deleted", bool, description="deleted ones too; needs the scope operations:read"),
    OpenApiParameter("ordering", str, enum=ORDERINGS, description=f"{ORDERINGS[0]} by default"),
    OpenApiParameter("page_size", int, description=f"1 to {SIZE_LARGEST}, {SIZE} by default"),
    OpenApiParameter("cursor", str, description="from next or previous of another page"),
]
_BODY: Final = {"name": "John Doe", "email": "john@example.com", "metadata": {"plan": "gold"}}
_INPUT: Final = OpenApiExample("A customer", _BODY, request_only=True)
_OUTPUT: Final = OpenApiExample(
    "A customer",
    {
        "id": "019a8f6e-6a1b-7c3d-9e4f-5a6b7c8d9e0f",
        **_BODY,
        "phone": None,
        "address": None,
        "version": 1,
        "created_at": "2026-03-01T12:00:00.000000Z",
        "updated_at": "2026-03-01T12:00:00.000000Z",
        "deleted_at": None,
        "integrations": {"stripe": {"status": "in_sync", "remote_id": "cus_NffrFeUfNV2Hib"}},
    },
    response_only=True,
)
_PROBLEMS: Final = {
    400: "Not valid, not JSON, or with fields that do not exist.",
    401: "No valid credentials.",
    403: "The credentials do not reach so far.",
    404: "There never was such a customer.",
    409: "Another active customer has the e-mail, or a protected change is under way; Retry-After says when to come "
    "back.",
    410: "The customer was deleted.",
    412: "The customer was changed since it was read.",
    413: "The body is too large.",
    415: "The body is not announced as JSON.",
    429: "Too many requests.",
    502: "An integration refused the protected change; nothing was changed, and what was sent was undone.",
    504: "The protected change is not decided yet; Location says where to look.",
    503: "Too busy, or the database does not answer; Retry-After says when to ask again.",
}


def answers(good: dict[int, Any], *problems: int, conflict: str = "") -> dict[int, Any]:
    """Answers of an operation by status: ``good`` ones, the problems it can have, and those that all can have.

    Args:
        conflict: what a 409 means here, when that is another thing than a taken e-mail.
    """
    statuses = sorted({401, 403, 429, 503, *problems, *([409] if conflict else [])})
    texts = {**_PROBLEMS, **({409: conflict} if conflict else {})}
    return good | {code: OpenApiResponse(description=texts[code]) for code in statuses}


customers: Final = extend_schema_view(
    get=extend_schema(
        operation_id="customers_list",
        summary="List customers",
        description="One page; the links lead to the pages beside it.",
        tags=_TAGS,
        parameters=_FILTERS,
        responses=answers({200: CustomerPage}, 400),
    ),
    post=extend_schema(
        operation_id="customers_create",
        summary="Create a customer",
        description="The customer and its event are written together; integrations follow in the background.",
        tags=_TAGS,
        parameters=[_PROTECTED, _EVENT_ID],
        request=CustomerCreate,
        responses=answers({201: CustomerOutput}, 400, 409, 413, 415, 502, 504),
        examples=[_INPUT, _OUTPUT],
    ),
)
customer: Final = extend_schema_view(
    get=extend_schema(
        operation_id="customers_retrieve",
        summary="Read a customer",
        tags=_TAGS,
        parameters=[_ID, _IF_NONE_MATCH],
        responses=answers(
            {200: CustomerOutput, 304: OpenApiResponse(description="The client has this already.")}, 400, 404, 410
        ),
        examples=[_OUTPUT],
    ),
    put=extend_schema(
        operation_id="customers_replace",
        summary="Replace a customer",
        description="Fields that are left out are cleared; read-only ones are ignored. Without a difference nothing "
        "is written and nothing published.",
        tags=_TAGS,
        parameters=[_ID, _IF_MATCH, _PROTECTED, _EVENT_ID],
        request=CustomerReplace,
        responses=answers({200: CustomerOutput}, 400, 404, 409, 410, 412, 413, 415, 502, 504),
        examples=[_INPUT, _OUTPUT],
    ),
    patch=extend_schema(
        operation_id="customers_update",
        summary="Change a customer",
        description="Fields that are left out stay; address and metadata are replaced as a whole.",
        tags=_TAGS,
        parameters=[_ID, _IF_MATCH, _PROTECTED, _EVENT_ID],
        request=CustomerChange,
        responses=answers({200: CustomerOutput}, 400, 404, 409, 410, 412, 413, 415, 502, 504),
        examples=[OpenApiExample("Another name", {"name": "John Roe"}, request_only=True), _OUTPUT],
    ),
    delete=extend_schema(
        operation_id="customers_delete",
        summary="Delete a customer",
        description="Terminal: the e-mail is free again, the record stays, and a second time is answered with 410.",
        tags=_TAGS,
        parameters=[_ID, _IF_MATCH, _PROTECTED, _EVENT_ID],
        request=None,
        responses=answers({204: None}, 400, 404, 409, 410, 412, 502, 504),
    ),
)
erasure: Final = extend_schema_view(
    get=extend_schema(
        operation_id="customers_erasure",
        summary="How far an erasure has come",
        tags=_TAGS,
        parameters=[_ID],
        responses=answers({200: ErasureOutput}, 404),
    ),
    post=extend_schema(
        operation_id="customers_erase",
        summary="Erase a customer's personal data",
        description="Deletes the customer, here at once and in integrations by their policy, and takes its data out of "
        "rows, events, attempts, requests, webhooks and kept answers. This cannot be undone. 202 while something that "
        "was under way may still write down what it had read; 200 once nothing can. While something live, as a "
        "subscription, hangs on its record in an integration, nothing is done (409) unless `despite_obstacles` is set.",
        tags=_TAGS,
        parameters=[_ID],
        request=ErasureInput,
        responses=answers(
            {200: ErasureOutput, 202: ErasureOutput}, 400, 404, conflict="Something live hangs on its record elsewhere."
        ),
    ),
)
export: Final = extend_schema_view(
    get=extend_schema(
        operation_id="customers_export",
        summary="Export all data of a customer",
        description="Everything that is kept about it, as one document: the customer, deleted or not, where it stands "
        "with integrations, conflicts, requests, webhooks, events and audit entries. The export is noted in the trail.",
        tags=_TAGS,
        parameters=[_ID],
        responses=answers({200: OpenApiResponse(OpenApiTypes.OBJECT)}, 404),
    ),
)
export_list: Final = extend_schema_view(
    get=extend_schema(
        operation_id="customers_export_list",
        summary="Export the list as CSV",
        description="All customers that the filters leave, one a line, in UTF-8. Cells that a spreadsheet would take "
        "for a formula begin with an apostrophe. The export is noted in the trail.",
        tags=_TAGS,
        parameters=[one for one in _FILTERS if one.name not in ("page_size", "cursor")],
        responses=answers({200: OpenApiResponse(description="text/csv")}, 400),
    ),
)
