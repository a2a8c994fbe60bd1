"""The API's description (OpenAPI), and the pages that show it; assets come from this host alone."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlencode

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.renderers import OpenApiJsonRenderer, OpenApiJsonRenderer2, OpenApiYamlRenderer
from drf_spectacular.views import SpectacularAPIView
from rest_framework.exceptions import NotAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from operations.negotiation import AnyFormat
from operations.permissions import HasScope
from operations.problem_details import MEDIA_TYPE
from operations.scopes import Scope

PUBLISHED: Final = "/api/v1/"
"""Only these addresses are described; the short ones beside them are the same views."""


class SchemaView(SpectacularAPIView):
    """``/api/schema/``: the description as JSON, or YAML when that is asked for."""

    renderer_classes = [OpenApiJsonRenderer, OpenApiJsonRenderer2, OpenApiYamlRenderer]
    permission_classes = [HasScope]
    required_scopes = {"read": Scope.CUSTOMERS_READ.value}
    schema = None


class DocsView(APIView):
    """``/api/docs/``: the description as a page to try things on."""

    content_negotiation_class = AnyFormat
    required_scopes = {"read": Scope.CUSTOMERS_READ.value}
    schema = None

    def get(self, request: Request) -> HttpResponse:
        return render(request._request, "zenskar/docs.html", {"schema_url": reverse("schema")})

    def handle_exception(self, exc: Exception) -> Response:
        if isinstance(exc, NotAuthenticated) and "text/html" in self.request.headers.get("Accept", ""):
            login = f"{reverse('admin:login')}?{urlencode({'next': self.request.path})}"
            return redirect(login)  # type: ignore[return-value]
        return super().handle_exception(exc)


class ApiKeyScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """How a key is sent."""

    target_class = "operations.authentication.ApiKeyAuthentication"
    name = "apiKey"

    def get_security_definition(self, auto_schema: AutoSchema) -> dict[str, Any]:
        return {
            "type": "http",
            "scheme": "bearer",
            "description": "An API key, as `manage.py apikey create` prints it.",
        }


class StaffSessionScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """How the console's session is sent."""

    target_class = "operations.authentication.StaffSessionAuthentication"
    name = "staffSession"

    def get_security_definition(self, auto_schema: AutoSchema) -> dict[str, Any]:
        # The cookie's usual name, whatever this deployment calls it: the description is the same everywhere.
        return {"type": "apiKey", "in": "cookie", "name": "sessionid", "description": "A member of staff, logged in."}


def published_only(endpoints: list[tuple[str, str, str, Any]]) -> list[tuple[str, str, str, Any]]:
    """Preprocessing hook: leaves out everything that is not of the versioned API."""
    return [endpoint for endpoint in endpoints if endpoint[0].startswith(PUBLISHED)]


def add_problem_answers(result: dict[str, Any], generator: Any, request: HttpRequest | None, public: bool) -> Any:
    """Postprocessing hook: every operation may answer with a problem document (RFC 9457)."""
    schemas = result.setdefault("components", {}).setdefault("schemas", {})
    schemas["FieldError"] = _FIELD_ERROR
    schemas["Problem"] = _PROBLEM
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    for operations in result["paths"].values():
        for operation in operations.values():
            for status, answer in operation["responses"].items():
                if status >= "400":
                    answer["content"] = content
            operation["responses"].setdefault("default", {"description": "A problem.", "content": content})
    return result


_FIELD_ERROR: Final[dict[str, Any]] = {
    "type": "object",
    "description": "What is wrong with one value of the request.",
    "required": ["pointer", "code", "detail"],
    "properties": {
        "pointer": {"type": "string", "description": "JSON pointer into the body; empty for the whole of it."},
        "code": {"type": "string"},
        "detail": {"type": "string"},
        "parameter": {"type": "string", "description": "The query parameter, when the value did not come in the body."},
    },
}
_PROBLEM: Final[dict[str, Any]] = {
    "type": "object",
    "description": "Something is wrong (RFC 9457).",
    "required": ["type", "title", "status", "detail", "code", "errors", "correlation_id"],
    "properties": {
        "type": {"type": "string", "format": "uri"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string", "description": "A stable word for programs."},
        "field": {"type": "string", "description": "The field that a constraint of the database refused."},
        "suggestion": {"type": "string", "description": "What to do about a constraint that refused it."},
        "errors": {"type": "array", "items": {"$ref": "#/components/schemas/FieldError"}},
        "correlation_id": {"type": "string"},
    },
}
