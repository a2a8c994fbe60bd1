"""Middleware around every request: its log line, its metrics, its errors, the headers of its answer."""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.urls import Resolver404, resolve
from django_structlog.middlewares import RequestMiddleware

from operations.audit import actor_of
from operations.metrics import HTTP_DURATION, HTTP_REQUESTS
from operations.problem_details import document_response
from zenskar.problems import is_for_people, method_not_allowed, problem_of


class RequestLogMiddleware(RequestMiddleware):
    """One line and one count for every request, with who sent it; neither bodies nor query strings.

    Query strings stay out because filters carry people's e-mail addresses.
    """

    @staticmethod
    def format_request(request: HttpRequest) -> str:
        return f"{request.method} {request.path}"

    def prepare(self, request: HttpRequest) -> None:
        self._mark(request)
        super().prepare(request)

    def handle_response(self, request: HttpRequest, response: HttpResponse) -> None:
        seconds = time.monotonic() - request.started_at  # type: ignore[attr-defined]
        method = request.method if request.method in _METHODS else "other"
        route = request.resolver_match.route if request.resolver_match else "none"
        HTTP_REQUESTS.labels(method, route, str(response.status_code)).inc()
        HTTP_DURATION.labels(method, route).observe(seconds)
        if response.status_code == 200 and request.path_info.startswith(_PROBES):
            structlog.contextvars.clear_contextvars()
            return
        structlog.contextvars.bind_contextvars(duration_ms=round(seconds * 1000, 1), actor=_actor(request))
        super().handle_response(request, response)

    @staticmethod
    def _mark(request: HttpRequest) -> None:
        request.started_at = time.monotonic()  # type: ignore[attr-defined]


class ProblemMiddleware:
    """Answers errors of plain views and of the console that have a meaning; others stay with Django's 500. What Django
    answers with an empty page becomes a problem too."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        if isinstance(response, HttpResponseNotAllowed) and not response.content:
            return method_not_allowed(request, response["Allow"])
        return response

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        if is_for_people(request):
            return None
        found = problem_of(exception)
        return None if found is None else document_response(*found)


class AnswerHeadersMiddleware:
    """Headers that every answer of ours carries, unless its view said otherwise."""

    DEFAULTS = {
        # Answers hold customers' data.
        "Cache-Control": "no-store",
        "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    }

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        for name, value in self.DEFAULTS.items():
            response.headers.setdefault(name, value)
        return response


class ConsoleSlashMiddleware:
    """Lets the console's addresses do without their trailing slash, as all others do, and without a redirect."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        path = request.path_info
        if path.startswith("/admin") and not path.endswith("/") and not _leads_somewhere(path):
            request.path_info += "/"
            request.path += "/"
        return self.get_response(request)


# Asked every few seconds by machines; only what goes wrong with them is worth a line.
_PROBES = ("/livez", "/readyz", "/metrics")
_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"})


def _leads_somewhere(path: str) -> bool:
    try:
        resolve(path)
    except Resolver404:
        return False
    return True


def _actor(request: HttpRequest) -> str:
    """Who sent it, as far as a view asked; the session is not read for the log's sake."""
    session = getattr(request, "session", None)
    known = getattr(request, "auth", None) is not None or (session is not None and session.accessed)
    return actor_of(request) if known else ""
