"""How the API's description (OpenAPI) shows that an operation honours ``Idempotency-Key``."""

from __future__ import annotations

from typing import Any

from drf_spectacular.openapi import AutoSchema
from drf_spectacular.utils import OpenApiParameter

_PARAMETER = OpenApiParameter(
    "Idempotency-Key",
    str,
    OpenApiParameter.HEADER,
    description="Makes repeats harmless: the same key means one effect and one answer, for a day. Up to 255 visible "
    "characters, bare or in double quotes. 409 while the first request is under way, 422 if it said something else, "
    "410 if what was answered spoke of somebody who was erased since.",
)


class IdempotentSchema(AutoSchema):
    """Adds the header to operations that honour it."""

    def get_override_parameters(self) -> list[Any]:
        found = list(super().get_override_parameters())
        handler = getattr(self.view, str(self.method).lower(), None)
        return [*found, _PARAMETER] if getattr(handler, "is_idempotent", False) else found
