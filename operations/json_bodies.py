"""JSON in and out of the API: strict where the standard is, and where PostgreSQL is stricter still."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import IO, Any, Final, NoReturn

import orjson
from django.conf import settings
from rest_framework.parsers import BaseParser
from rest_framework.renderers import BaseRenderer
from rest_framework.utils import encoders

from operations.errors import BodyTooLarge, FieldError, MalformedBody

DEEPEST: Final = 32
"""Levels of arrays and objects in one body; far more than any body of ours has, far less than Python's stack."""

_BRACKETS: Final = re.compile(rb'"(?:[^"\\]|\\.)*+"|[\[{]|[\]}]', re.DOTALL)
_UNSTORABLE: Final = re.compile("[\x00\ud800-\udfff]")


class StrictJsonParser(BaseParser):
    """Parses a JSON body, or refuses it.

    Refused beyond what Python's ``json`` refuses: bytes that are not UTF-8, NaN and infinities (also ``1e999``), keys
    that occur twice, more than 32 levels, and NUL characters or lone surrogates in strings, which PostgreSQL cannot
    store.

    Raises:
        BodyTooLarge: more bytes than ``DATA_UPLOAD_MAX_MEMORY_SIZE``.
        MalformedBody: not such JSON; with the pointer of the string, where a string is at fault.
    """

    media_type = "application/json"

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:
        limit = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
        body: bytes = stream.read() if limit is None else stream.read(limit + 1)
        if limit is not None and len(body) > limit:
            raise BodyTooLarge
        return parsed(body)


def parsed(body: bytes) -> Any:
    """The value of a JSON document, as ``StrictJsonParser`` defines it."""
    # Looked at before parsing: Python's parser recurses once a level.
    if body.count(b"[") + body.count(b"{") > DEEPEST:
        _refuse_depth(body)
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise MalformedBody("The body is not UTF-8.") from exc
    try:
        value = json.loads(text, object_pairs_hook=_object, parse_constant=_refuse_constant, parse_float=_finite)
    except ValueError as exc:
        # The parser's own message tells where it stumbled and quotes nothing of the body.
        detail = str(exc) if isinstance(exc, json.JSONDecodeError) else "A number is too long."
        raise MalformedBody(f"The body is not JSON: {detail}") from exc
    # Such characters can only come as escapes: raw ones were refused above.
    if "\\u" in text:
        errors = [
            FieldError(pointer=pointer, code="invalid_characters", detail="NUL and lone surrogates cannot be stored.")
            for pointer in _unstorable(value, "")
        ]
        if errors:
            raise MalformedBody("The body holds characters that cannot be stored.", errors=errors)
    return value


class JsonRenderer(BaseRenderer):
    """Renders JSON; the only form in which the API answers. Problems are the same with another name."""

    media_type = "application/json"
    format = "json"
    charset = None
    render_style = "text"

    def render(
        self, data: Any, accepted_media_type: str | None = None, renderer_context: Mapping[str, Any] | None = None
    ) -> bytes:
        if data is None:
            return b""
        return orjson.dumps(data, default=_plain, option=orjson.OPT_UTC_Z)


_encoder: Final = encoders.JSONEncoder()


def _plain(value: Any) -> Any:
    return _encoder.default(value)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        # Two parsers may read such a body differently; the one that checks must not differ from the one that acts.
        raise MalformedBody("A key occurs twice in one object.")
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise MalformedBody(f"{name} is not JSON.")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise MalformedBody("A number is too large.")
    return number


def _refuse_depth(body: bytes) -> None:
    depth = 0
    for match in _BRACKETS.finditer(body):
        if match[0] in (b"[", b"{"):
            depth += 1
            if depth > DEEPEST:
                raise MalformedBody(f"The body is nested more than {DEEPEST} levels deep.")
        elif match[0] in (b"]", b"}"):
            depth -= 1


def _unstorable(value: Any, pointer: str) -> Iterator[str]:
    match value:
        case str():
            if _UNSTORABLE.search(value):
                yield pointer
        case dict():
            for key, element in value.items():
                # A pointer that named such a key could not be sent either.
                if _UNSTORABLE.search(key):
                    yield pointer
                else:
                    yield from _unstorable(element, f"{pointer}/{key.replace('~', '~0').replace('/', '~1')}")
        case list():
            for index, element in enumerate(value):
                yield from _unstorable(element, f"{pointer}/{index}")
