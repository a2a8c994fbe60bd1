"""Entity tags of customers and the preconditions made of them (RFC 9110, sections 8.8.3 and 13).

A tag is ``"<version>-<digest>"``. The digest is of what integrations say about the customer, which changes without a
new version; so the tag is strong: another representation has another tag, and a client that polls with If-None-Match
sees its customer reach Stripe. If-Match compares the version alone: an edit is stale when the customer's own values
changed since they were read, not when a sync moved on meanwhile.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any, Final

import orjson

from customers.errors import MalformedPrecondition, VersionMismatch

ANY: Final = "*"

_TAG: Final = r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"'
_LIST: Final = re.compile(rf"\s*{_TAG}(?:\s*,\s*{_TAG})*\s*\Z")
_TAGS: Final = re.compile(_TAG)
_OURS: Final = re.compile(r'"(\d{1,9})(?:-[0-9a-f]{12})?"\Z')


def etag(version: int, integrations: Mapping[str, Any]) -> str:
    """The entity tag of a customer's representation."""
    digest = hashlib.sha256(orjson.dumps(integrations, option=orjson.OPT_SORT_KEYS)).hexdigest()
    return f'"{version}-{digest[:12]}"'


def versions_of_if_match(header: str | None) -> frozenset[int] | None:
    """The versions that a change may be made of; None: any that exists.

    Raises:
        MalformedPrecondition: the header is neither a list of entity tags nor an asterisk.
        VersionMismatch: none of the tags could be one of ours. Weak ones never match here.
    """
    if header is None or header.strip() == ANY:
        return None
    versions = frozenset(int(match[1]) for tag in _tags(header) if (match := _OURS.match(tag)))
    if not versions:
        raise VersionMismatch
    return versions


def is_unchanged(header: str | None, current: str) -> bool:
    """Whether a client that sent this If-None-Match has the representation already.

    Raises:
        MalformedPrecondition: the header is neither a list of entity tags nor an asterisk.
    """
    if header is None:
        return False
    if header.strip() == ANY:
        return True
    return current in {tag.removeprefix("W/") for tag in _tags(header)}


def _tags(header: str) -> list[str]:
    if len(header) > 4096 or not _LIST.match(header):
        raise MalformedPrecondition
    return _TAGS.findall(header)
