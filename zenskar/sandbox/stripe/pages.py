"""The page for people at ``/``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from zenskar.sandbox.stripe.calls import Response

if TYPE_CHECKING:
    from zenskar.sandbox.stripe.core import StripeSandbox


def handle(
    sandbox: StripeSandbox, method: str, path: str, query: str, headers: Mapping[str, str], body: bytes
) -> Response:
    return Response(status=404, headers={"Content-Type": "text/plain; charset=utf-8"}, body=b"Not found\n")
