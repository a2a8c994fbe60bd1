"""The address that a request came from."""

from __future__ import annotations

from django.http import HttpRequest

from operations.conf import access_settings


def client_address(request: HttpRequest) -> str:
    """The client's address, as the outermost of our own proxies saw it.

    ``X-Forwarded-For`` can be written by anybody; only the entries that our own proxies appended are believed.
    """
    peer: str = request.META.get("REMOTE_ADDR", "")
    trusted = access_settings().trusted_proxies
    if trusted == 0:
        return peer
    entries = [entry.strip() for entry in request.headers.get("X-Forwarded-For", "").split(",") if entry.strip()]
    return entries[-trusted] if len(entries) >= trusted else peer
