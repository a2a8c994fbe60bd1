"""What a key belongs to: the header, the address without its spellings, the fingerprint of all that was sent."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from typing import Any, Final

from operations.idempotency.errors import KeyMalformed

HEADER: Final = "Idempotency-Key"
_BARE: Final = re.compile(r"[\x21-\x7e]{1,255}\Z")
_QUOTED: Final = re.compile(r'"((?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"\Z')
_UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z", re.IGNORECASE)
_VERSION: Final = "/api/v1/"


def key_of_header(text: str) -> str:
    """The key: a quoted string (as the IETF draft has it) or bare characters (as Stripe has it) mean the same.

    Raises:
        KeyMalformed: empty, longer than 255 characters, control characters, no ASCII, or several keys.
    """
    text = text.strip(" \t")
    if text.startswith('"'):
        match = _QUOTED.match(text)
        key = re.sub(r'\\(["\\])', r"\1", match[1]) if match else ""
        if not 0 < len(key) <= 255:
            raise KeyMalformed
        return key
    # A comma is what joins two headers of one name: which of them would be meant?
    if not _BARE.match(text) or '"' in text or "," in text:
        raise KeyMalformed
    return text


def canonical_route(path: str) -> str:
    """The address that all spellings of it share: with or without version and trailing slash, UUIDs in either case."""
    if path.startswith(_VERSION):
        path = path[len(_VERSION) - 1 :]
    parts = [part.lower() if _UUID.match(part) else part for part in path.rstrip("/").split("/")]
    return "/".join(parts)


def fingerprint_of(method: str, route: str, query: Iterable[tuple[str, list[str]]], body: Any) -> str:
    """The same for requests that say the same, in whatever order and with whatever white space."""
    said = [method, route, sorted((name, values) for name, values in query), body]
    # The standard library's writer: numbers in JSON may be larger than 64 bits.
    text = json.dumps(said, sort_keys=True, separators=(",", ":"), ensure_ascii=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
