from __future__ import annotations

from typing import Any

import pytest

from operations.idempotency.errors import KeyMalformed
from operations.idempotency.requests import canonical_route, fingerprint_of, key_of_header

pytestmark = pytest.mark.feature("C10")


@pytest.mark.parametrize(
    ("header", "key"),
    [
        ("abc", "abc"),
        ('"abc"', "abc"),
        (" abc ", "abc"),
        ('"a b"', "a b"),
        ('"a,b"', "a,b"),
        (r'"a\"b\\"', 'a"b\\'),
        ("x" * 255, "x" * 255),
        ('"' + "x" * 255 + '"', "x" * 255),
    ],
)
def test_it_reads_quoted_and_bare_keys(header: str, key: str) -> None:
    assert key_of_header(header) == key


@pytest.mark.parametrize(
    "header",
    [
        "",
        " ",
        '""',
        '"',
        '"a',
        'a"',
        'a"b',
        "a b",
        "a,b",
        '"a", "b"',
        "x" * 256,
        '"' + "x" * 256 + '"',
        "é",
        "a\tb",
        "\x7f",
        r'"a\b"',
        "a\x00b",
        '"\u20ac"',
        '"a\nb"',
        "a\n",
    ],
)
def test_it_refuses_what_is_no_key(header: str) -> None:
    with pytest.raises(KeyMalformed):
        key_of_header(header)


def test_it_knows_an_address_by_all_its_spellings() -> None:
    spellings = [
        "/customers/019A8F6E-6A1B-7C3D-9E4F-5A6B7C8D9E0F",
        "/customers/019a8f6e-6a1b-7c3d-9e4f-5a6b7c8d9e0f/",
        "/api/v1/customers/019a8f6e-6a1b-7c3d-9e4f-5a6b7c8d9e0f/",
    ]

    assert {canonical_route(path) for path in spellings} == {"/customers/019a8f6e-6a1b-7c3d-9e4f-5a6b7c8d9e0f"}
    assert canonical_route("/customers/A") != canonical_route("/customers/a")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({"a": 1, "b": [1, 2]}, {"b": [1, 2], "a": 1}, True),
        ({"a": 1}, {"a": 2}, False),
        ({"a": 1}, {"a": "1"}, False),
        ({"a": [1, 2]}, {"a": [2, 1]}, False),
        ({"a": 10**30}, {"a": 10**30}, True),
        (None, {}, False),
    ],
)
def test_it_compares_what_bodies_say(one: Any, other: Any, same: bool) -> None:
    assert (fingerprint_of("POST", "/x", [], one) == fingerprint_of("POST", "/x", [], other)) is same


def test_it_compares_method_address_and_query_too() -> None:
    base = fingerprint_of("POST", "/x", [("a", ["1"])], {})

    assert base != fingerprint_of("PUT", "/x", [("a", ["1"])], {})
    assert base != fingerprint_of("POST", "/y", [("a", ["1"])], {})
    assert base != fingerprint_of("POST", "/x", [("a", ["2"])], {})
