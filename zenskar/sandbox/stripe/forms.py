"""Form bodies and query strings with nested brackets: ``metadata[plan]=pro``, ``expand[]=data.customer``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote_to_bytes

from zenskar.sandbox.stripe.errors import StripeError

MAX_DEPTH = 10
_KEY = re.compile(r"([^\[\]]+)((?:\[[^\[\]]*\])*)")
_SEGMENT = re.compile(r"\[([^\[\]]*)\]")


def form_decode(text: str) -> dict[str, Any]:
    """Nested dictionaries of strings; ``a[]`` and ``a[0]`` become dictionaries keyed by index, in order.

    Raises StripeError 400 for invalid UTF-8, malformed brackets and nesting deeper than MAX_DEPTH.
    """
    params: dict[str, Any] = {}
    for pair in text.split("&"):
        if not pair:
            continue
        name, _, value = pair.partition("=")
        _insert(params, _segments(_unquote(name)), _unquote(value))
    return params


def request_params(method: str, query: str, headers: Mapping[str, str], body: bytes) -> dict[str, Any]:
    """Parameters of the query, and of the body for POST; a query beside a body counts too, as with Stripe."""
    text = query
    if body and method != "GET":
        kind = headers.get("content-type", "application/x-www-form-urlencoded").partition(";")[0].strip().lower()
        if kind != "application/x-www-form-urlencoded":
            raise StripeError(
                400,
                "Invalid request (check that your POST content type is application/x-www-form-urlencoded). If you have "
                "any questions, we can help at https://support.stripe.com/.",
            )
        try:
            form = body.decode("utf-8")
        except UnicodeDecodeError as exc:
            raise StripeError(400, "Invalid UTF-8 in request.") from exc
        text = f"{query}&{form}" if query else form
    return form_decode(text)


def as_list(value: Any) -> list[Any] | None:
    """The items of an array parameter in index order, None when ``value`` is no array."""
    if not isinstance(value, dict) or not all(key.isdigit() for key in value):
        return None
    return [value[key] for key in sorted(value, key=int)]


def _unquote(text: str) -> str:
    try:
        return unquote_to_bytes(text.replace("+", " ")).decode("utf-8")
    except UnicodeError as exc:
        raise StripeError(400, "Invalid UTF-8 in request.") from exc


def _segments(name: str) -> list[str]:
    match = _KEY.fullmatch(name)
    if match is None:
        raise StripeError(400, f"Invalid parameter name: {name[:100]}", param=name[:100])
    segments = [match[1], *_SEGMENT.findall(match[2])]
    if len(segments) > MAX_DEPTH:
        raise StripeError(400, f"Parameters are nested too deeply: {match[1]}", param=match[1])
    return segments


def _insert(params: dict[str, Any], segments: list[str], value: str) -> None:
    here = params
    for position, segment in enumerate(segments):
        key = segment or str(len(here))
        if position == len(segments) - 1:
            here[key] = value
            return
        below = here.get(key)
        if not isinstance(below, dict):
            below = here[key] = {}
        here = below
