"""Content negotiation for views that answer in one form of their own."""

from __future__ import annotations

from typing import Any

from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.request import Request


class AnyFormat(BaseContentNegotiation):
    """Takes whatever ``Accept`` says: browsers and Prometheus ask for forms that only such a view knows."""

    def select_parser(self, request: Request, parsers: Any) -> Any:
        return parsers[0]

    def select_renderer(self, request: Request, renderers: Any, format_suffix: str | None = None) -> Any:
        return renderers[0], renderers[0].media_type
