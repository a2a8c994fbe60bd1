"""The one error handler: whatever goes wrong under the API becomes problem+json (RFC 9457), and never says too much."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any, Final

import psycopg
import structlog
from django.core.exceptions import PermissionDenied
from django.db import DataError, IntegrityError, InterfaceError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse
from django.template import loader
from rest_framework import exceptions
from rest_framework.response import Response
from rest_framework.views import set_rollback

from dbresilience.constraints import constraint_violation
from dbresilience.sqlstate import LOCK_NOT_AVAILABLE, sqlstate_of
from operations.errors import FieldError, ProblemError
from operations.problem_details import MEDIA_TYPE, document_response, problem_document
from operations.problem_details import document_of as document_of_error

log = structlog.get_logger(__name__)

_CONFLICTS: Final = frozenset({"duplicate_entry", "invalid_reference", "conflicting_range"})
_DRF_CODES: Final = {
    "parse_error": "malformed_body",
    "not_authenticated": "not_authenticated",
    "authentication_failed": "credentials_refused",
    "permission_denied": "not_allowed",
    "throttled": "too_many_requests",
}
_FIELD_CODES: Final = {
    "required": "required_field",
    "null": "required_field",
    "blank": "required_field",
    "unique": "duplicate_entry",
    "invalid": "invalid_value",
    "does_not_exist": "invalid_reference",
}
RETRY_SOON: Final = {"Retry-After": "1"}


def exception_handler(exc: Exception, context: Mapping[str, Any]) -> Response | None:
    """Django REST framework's ``EXCEPTION_HANDLER``; None leaves what nobody foresaw to Django's 500."""
    found = problem_of(exc)
    if found is None:
        return None
    set_rollback()
    document, headers = found
    return Response(document, status=document["status"], headers=headers, content_type=MEDIA_TYPE)


def problem_of(exc: BaseException) -> tuple[dict[str, Any], dict[str, str]] | None:
    """The problem document and headers that answer an exception; None when it is a fault of ours."""
    match exc:
        case ProblemError():
            return document_of_error(exc), exc.headers
        case exceptions.ValidationError():
            errors = list(_field_errors(exc.detail, exc.get_codes(), ""))
            detail = errors[0].detail if len(errors) == 1 else f"{len(errors)} values are not valid."
            return _document(400, "validation_failed", detail, errors), {}
        case exceptions.APIException():
            return _of_framework(exc)
        case Http404():
            return _document(404, "not_found", "There is nothing at this address."), {}
        case PermissionDenied():
            return _document(403, "not_allowed", "You may not do this."), {}
        case IntegrityError():
            return _of_constraint(exc), {}
        case DataError():
            # A value that the database cannot hold and no validator caught: the caller's input, not a fault of ours,
            # but a validator is missing; so it is logged.
            log.warning("value_refused_by_database", exc_info=exc)
            return _document(400, "invalid_value", "A value cannot be stored."), {}
        case OperationalError() | psycopg.OperationalError() if sqlstate_of(exc) == LOCK_NOT_AVAILABLE:
            log.warning("lock_not_granted")
            detail = "Somebody else is changing this now, and takes long. Nothing was changed. Try again."
            return _document(503, "record_busy", detail), RETRY_SOON
        case OperationalError() | InterfaceError() | psycopg.OperationalError():
            log.error("database_unavailable", error=type(exc.__cause__ or exc).__name__)
            return _document(503, "database_unavailable", "The database does not answer now. Try again."), RETRY_SOON
        case _:
            return None


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Django's ``handler400``."""
    return _answer(request, 400, "bad_request", "The request cannot be understood.")


def permission_denied(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Django's ``handler403``."""
    return _answer(request, 403, "not_allowed", "You may not do this.")


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Django's ``handler404``."""
    return _answer(request, 404, "not_found", "There is nothing at this address.")


def method_not_allowed(request: HttpRequest, allow: str) -> HttpResponse:
    """For views of Django's own, whose 405 is an empty page."""
    answer = _answer(request, 405, "method_not_allowed", f"This address takes {allow or 'no method at all'}.")
    answer["Allow"] = allow
    return answer


def server_error(request: HttpRequest) -> HttpResponse:
    """Django's ``handler500``."""
    return _answer(request, 500, "internal_error", "Something went wrong here; it has been logged.")


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """Django's ``CSRF_FAILURE_VIEW``. The reason goes to the log alone."""
    log.warning("csrf_failed", reason=reason)
    return _answer(request, 403, "csrf_failed", "The CSRF token is missing or wrong. Load the page again.")


def _answer(request: HttpRequest, status: int, code: str, detail: str) -> HttpResponse:
    document = _document(status, code, detail)
    if not is_for_people(request):
        return document_response(document)
    # Without the request: what makes the context of other pages may be what went wrong.
    page = loader.get_template("operations/error.html").render(document)
    return HttpResponse(page, status=status)


def is_for_people(request: HttpRequest) -> bool:
    """Whether the answer is a page: an address outside of the API, asked for by something that reads HTML."""
    return not request.path_info.startswith("/api") and "text/html" in request.headers.get("Accept", "")


def _document(status: int, code: str, detail: str, errors: list[FieldError] | None = None) -> dict[str, Any]:
    return problem_document(
        status=status, code=code, title=HTTPStatus(status).phrase, detail=detail, errors=errors or []
    )


def _of_framework(exc: exceptions.APIException) -> tuple[dict[str, Any], dict[str, str]]:
    headers: dict[str, str] = {}
    if header := getattr(exc, "auth_header", None):
        headers["WWW-Authenticate"] = header
    if (wait := getattr(exc, "wait", None)) is not None:
        headers["Retry-After"] = str(int(wait))
    code = str(getattr(exc.detail, "code", exc.default_code))
    return _document(exc.status_code, _DRF_CODES.get(code, code), str(exc.detail)), headers


def _of_constraint(exc: IntegrityError) -> dict[str, Any]:
    violation = constraint_violation(exc)
    log.info("constraint_violated", constraint=violation.constraint, table=violation.table, code=violation.code)
    errors = [
        FieldError(pointer=f"/{column}", code=violation.code, detail=violation.message) for column in violation.columns
    ]
    status = 409 if violation.code in _CONFLICTS else 400
    document = _document(status, violation.code, violation.message, errors)
    if violation.columns:
        document["field"] = violation.columns[0]
        document["suggestion"] = violation.suggestion
    return document


def _field_errors(detail: Any, codes: Any, pointer: str) -> Iterator[FieldError]:
    """Flatten the framework's nested errors into one list, each with the pointer of its value."""
    if isinstance(detail, Mapping):
        for key, value in detail.items():
            place = pointer if key == "non_field_errors" else f"{pointer}/{pointer_token(str(key))}"
            yield from _field_errors(value, codes[key], place)
    elif isinstance(detail, list):
        for index, (value, code) in enumerate(zip(detail, codes, strict=True)):
            # A list of plain messages speaks of the value itself; a list of mappings of the value's elements.
            nested = isinstance(value, Mapping | list)
            yield from _field_errors(value, code, f"{pointer}/{index}" if nested else pointer)
    else:
        yield FieldError(pointer=pointer, code=_FIELD_CODES.get(str(codes), str(codes)), detail=str(detail))


def pointer_token(key: str) -> str:
    """One reference token of a JSON pointer, escaped as RFC 6901 says."""
    return key.replace("~", "~0").replace("/", "~1")
