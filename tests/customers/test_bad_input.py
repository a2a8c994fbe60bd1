from __future__ import annotations

from typing import Any

import pytest

from customers.models import Customer
from tests.customers.published import published

pytestmark = [pytest.mark.feature("A16"), pytest.mark.django_db]

CUSTOMERS = "/api/v1/customers/"
LONG_EMAIL = "x" * 64 + "@" + ".".join(["y" * 61] * 4) + ".example"


def assert_refused(answer: Any, status: int, code: str, *pointers: str) -> None:
    """A problem document of this status and code that points at these places, and nothing written."""
    document = answer.json()
    assert (answer.status_code, answer["Content-Type"]) == (status, "application/problem+json"), document
    assert document.keys() >= {"type", "title", "status", "detail", "code", "errors", "correlation_id"}
    assert (document["status"], document["code"]) == (status, code)
    assert document["correlation_id"] == answer["X-Correlation-ID"] != ""
    assert [error["pointer"] for error in document["errors"]] == list(pointers)
    assert all(error["code"] and error["detail"] for error in document["errors"])


BODIES: list[tuple[str, bytes, int, str, list[str]]] = [
    ("malformed JSON", b'{"name": "Ann"', 400, "malformed_json", []),
    ("empty", b"", 400, "validation_failed", ["/name", "/email"]),
    ("two documents", b'{"name": "Ann"} {}', 400, "malformed_json", []),
    ("a key twice", b'{"name": "Ann", "name": "Eve"}', 400, "malformed_json", []),
    ("invalid UTF-8", b'{"name": "\xff\xfe"}', 400, "malformed_json", []),
    ("overlong UTF-8", b'{"name": "\xc0\x80"}', 400, "malformed_json", []),
    ("UTF-16", '{"name": "Ann"}'.encode("utf-16"), 400, "malformed_json", []),
    ("NaN", b'{"name": NaN}', 400, "malformed_json", []),
    ("infinity", b'{"name": -Infinity}', 400, "malformed_json", []),
    ("huge number", b'{"name": 1e999}', 400, "malformed_json", []),
    ("long number", b'{"name": ' + b"9" * 10_000 + b"}", 400, "malformed_json", []),
    ("nested arrays", b"[" * 100_000, 400, "malformed_json", []),
    ("nested arrays, closed", b"[" * 100_000 + b"]" * 100_000, 400, "malformed_json", []),
    ("nested objects", b'{"a":' * 100_000 + b"1" + b"}" * 100_000, 400, "malformed_json", []),
    ("nested metadata", b'{"metadata": {"a": [[[[[[[[[[]]]]]]]]]]}}', 400, "validation_failed", ["/metadata/a"]),
    ("10 MB", b'{"name": "' + b"x" * 10_000_000 + b'"}', 413, "body_too_large", []),
    ("NUL", b'{"name": "A\\u0000nn"}', 400, "malformed_json", ["/name"]),
    ("NUL in a key", b'{"name": "A", "metadata": {"a\\u0000": "1"}}', 400, "malformed_json", ["/metadata"]),
    ("lone surrogate", b'{"name": "\\ud800"}', 400, "malformed_json", ["/name"]),
    ("lone low surrogate", b'{"metadata": {"a": "x\\udc00"}}', 400, "malformed_json", ["/metadata/a"]),
    ("an array", b"[]", 400, "validation_failed", [""]),
    ("a string", b'"Ann"', 400, "validation_failed", [""]),
    ("null", b"null", 400, "validation_failed", [""]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("body", "status", "code", "pointers"), [row[1:] for row in BODIES], ids=[row[0] for row in BODIES]
)
def test_it_refuses_bodies_that_are_no_customer(
    api: Any, body: bytes, status: int, code: str, pointers: list[str]
) -> None:
    answer = api.post(CUSTOMERS, body)

    assert_refused(answer, status, code, *pointers)
    assert (Customer.objects.count(), published()) == (0, [])


VALUES: list[tuple[str, Any, list[str]]] = [
    ("nothing", {}, ["/name", "/email"]),
    ("neither name nor e-mail", {"phone": "1", "name": None, "email": None}, ["/name", "/email"]),
    ("unknown fields", {"name": "Ann", "nmae": "x", "a/b~": 1}, ["/nmae", "/a~1b~0"]),
    ("read-only fields", {"name": "Ann", "id": "1", "version": 7}, ["/id", "/version"]),
    ("number for a name", {"name": 1}, ["/name"]),
    ("boolean for a name", {"name": True}, ["/name"]),
    ("array for a name", {"name": ["Ann"]}, ["/name"]),
    ("object for an e-mail", {"email": {"a": "b"}}, ["/email"]),
    ("number for a phone", {"name": "Ann", "phone": 491234}, ["/phone"]),
    ("string for an address", {"name": "Ann", "address": "Bonn"}, ["/address"]),
    ("array for metadata", {"name": "Ann", "metadata": [["a", "b"]]}, ["/metadata"]),
    ("null for metadata", {"name": "Ann", "metadata": None}, ["/metadata"]),
    ("empty name", {"name": ""}, ["/name"]),
    ("blank name", {"name": " \t "}, ["/name"]),
    ("long name", {"name": "x" * 257}, ["/name"]),
    ("line break in a name", {"name": "Ann\nX-Header: 1"}, ["/name"]),
    ("no e-mail", {"email": "not-an-email"}, ["/email"]),
    ("e-mail without a dot", {"email": "a@b"}, ["/email"]),
    ("e-mail with two ats", {"email": "a@b@example.com"}, ["/email"]),
    ("e-mail with a space", {"email": "a b@example.com"}, ["/email"]),
    ("e-mail with a line break", {"email": "a@example.com\nBcc: b@example.com"}, ["/email"]),
    ("e-mail of 320 characters", {"email": LONG_EMAIL}, ["/email"]),
    ("empty e-mail", {"name": "Ann", "email": ""}, ["/email"]),
    ("long phone", {"name": "Ann", "phone": "1" * 21}, ["/phone"]),
    ("unknown address key", {"name": "Ann", "address": {"street": "x"}}, ["/address/street"]),
    ("number in an address", {"name": "Ann", "address": {"city": 1}}, ["/address/city"]),
    ("long city", {"name": "Ann", "address": {"city": "x" * 257, "line1": ""}}, ["/address/city", "/address/line1"]),
    ("country by name", {"name": "Ann", "address": {"country": "Germany"}}, ["/address/country"]),
    ("50 metadata keys", {"name": "Ann", "metadata": {f"k{n}": "v" for n in range(50)}}, ["/metadata"]),
    ("long metadata key", {"name": "Ann", "metadata": {"k" * 41: "v"}}, ["/metadata/" + "k" * 41]),
    ("the metadata key that is ours", {"name": "Ann", "metadata": {"zenskar_id": "v"}}, ["/metadata/zenskar_id"]),
    ("empty metadata key", {"name": "Ann", "metadata": {"": "v"}}, ["/metadata/"]),
    ("brackets in a key", {"name": "Ann", "metadata": {"a[b]": "v"}}, ["/metadata/a[b]"]),
    ("long metadata value", {"name": "Ann", "metadata": {"k": "v" * 501}}, ["/metadata/k"]),
    ("empty metadata value", {"name": "Ann", "metadata": {"k": ""}}, ["/metadata/k"]),
    ("number in metadata", {"name": "Ann", "metadata": {"k": 1}}, ["/metadata/k"]),
    ("null in metadata", {"name": "Ann", "metadata": {"k": None}}, ["/metadata/k"]),
    ("several at once", {"name": 1, "email": "x", "phone": []}, ["/name", "/email", "/phone"]),
]  # fmt: skip


@pytest.mark.parametrize(("body", "pointers"), [row[1:] for row in VALUES], ids=[row[0] for row in VALUES])
def test_it_refuses_values_and_points_at_each(api: Any, body: Any, pointers: list[str]) -> None:
    answer = api.post(CUSTOMERS, body)

    assert_refused(answer, 400, "validation_failed", *pointers)
    assert (Customer.objects.count(), published()) == (0, [])


@pytest.mark.parametrize(("method", "body", "pointers"), [
    ("PUT", {"name": "Ann"}, ["/email"]),
    ("PUT", {}, ["/name", "/email"]),
    ("PUT", {"name": "Ann", "email": None, "nmae": 1}, ["/nmae"]),
    ("PATCH", {"version": 2}, ["/version"]),
    ("PATCH", {"nmae": "Ann"}, ["/nmae"]),
    ("PATCH", {"email": LONG_EMAIL, "metadata": {"k": 1}}, ["/email", "/metadata/k"]),
    ("PATCH", [], [""]),
])  # fmt: skip
def test_it_refuses_changes_and_points_at_each(api: Any, method: str, body: Any, pointers: list[str]) -> None:
    customer = api.post(CUSTOMERS, {"name": "Ann"}).json()

    answer = api(method, f"{CUSTOMERS}{customer['id']}/", body)

    assert_refused(answer, 400, "validation_failed", *pointers)
    assert (Customer.objects.get().version, len(published())) == (1, 1)


def test_it_takes_the_longest_values(api: Any) -> None:
    body = {
        "name": "x" * 256,
        "email": "x" * 64 + "@" + ".".join(["y" * 60] * 3) + ".com",
        "phone": "1" * 20,
        "address": dict.fromkeys(("line1", "line2", "city", "state", "postal_code"), "z" * 256) | {"country": "DE"},
        "metadata": {f"{n:040}": "\N{GRINNING FACE}" * 500 for n in range(49)},
    }

    answer = api.post(CUSTOMERS, body)

    assert answer.status_code == 201
    assert {key: answer.json()[key] for key in body} == body


@pytest.mark.feature("A5", "C3")
@pytest.mark.parametrize("email", ["ann@example.com", "ANN@EXAMPLE.COM", "  Ann@Example.com "])
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
def test_it_refuses_an_email_that_is_taken_in_any_case(api: Any, method: str, email: str) -> None:
    api.post(CUSTOMERS, {"name": "Ann", "email": "ann@example.com"})
    other = api.post(CUSTOMERS, {"name": "Other", "email": "other@example.com"}).json()

    path = CUSTOMERS if method == "POST" else f"{CUSTOMERS}{other['id']}/"
    answer = api(method, path, {"name": "Third", "email": email})

    assert_refused(answer, 409, "duplicate_entry", "/email")
    assert answer.json()["field"] == "email"
    assert sorted(Customer.objects.values_list("name", flat=True)) == ["Ann", "Other"]
    assert len(published()) == 2


@pytest.mark.parametrize("customer_id", [
    "01890000-0000-7000-8000-000000000000", "0", "none", "01890000", "1" * 5000, "018900000000700080000000000000000",
    "%00", "%FF", "{01890000-0000-7000-8000-000000000000}", "..%2f..",
])  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE"])
def test_it_knows_no_unknown_customer(api: Any, method: str, customer_id: str) -> None:
    answer = api(method, f"{CUSTOMERS}{customer_id}/", {"name": "Ann", "email": None})

    document = answer.json()
    assert (answer.status_code, answer["Content-Type"]) in [
        (404, "application/problem+json"),
        (400, "application/problem+json"),
    ]
    assert document["code"] in ("not_found", "malformed_request")
    assert published() == []


@pytest.mark.parametrize(("query", "code", "parameter"), [
    ("cursor=abc", "invalid_cursor", "cursor"),
    ("cursor=" + "x" * 5000, "invalid_cursor", "cursor"),
    ("cursor=WyItY3JlYXRlZF9hdCJd:1abcde:AAAA", "invalid_cursor", "cursor"),
    ("ordering=email", "invalid_value", "ordering"),
    ("ordering=-created_at,name", "invalid_value", "ordering"),
    ("page_size=0", "invalid_value", "page_size"),
    ("page_size=-1", "invalid_value", "page_size"),
    ("page_size=201", "invalid_value", "page_size"),
    ("page_size=1e2", "invalid_value", "page_size"),
    ("page_size=" + "9" * 5000, "invalid_value", "page_size"),
    ("created_after=yesterday", "invalid_value", "created_after"),
    ("created_before=2026-13-01", "invalid_value", "created_before"),
    ("updated_after=99999-01-01T00:00:00Z", "invalid_value", "updated_after"),
        ("updated_after=0001-01-01T00:00:00%2B14:00", "invalid_value", "updated_after"),
    ("updated_before=1", "invalid_value", "updated_before"),
    ("sync_status=fine", "invalid_value", "sync_status"),
    ("integration=paypal", "invalid_value", "integration"),
    ("include_deleted=1", "invalid_value", "include_deleted"),
    ("email=" + "x" * 513, "invalid_value", "email"),
    ("name=" + "x" * 257, "invalid_value", "name"),
    ("colour=red", "unknown_parameter", "colour"),
    ("name__startswith=A", "unknown_parameter", "name__startswith"),
    ("name=a&name=b", "repeated_parameter", "name"),
])  # fmt: skip
def test_it_refuses_queries_and_names_the_parameter(api: Any, query: str, code: str, parameter: str) -> None:
    answer = api.get(f"{CUSTOMERS}?{query}")

    assert_refused(answer, 400, "invalid_query", "")
    [error] = answer.json()["errors"]
    assert (error["code"], error["parameter"]) == (code, parameter)


@pytest.mark.parametrize("query", ["name=%00", "email=a%00b", "cursor=%00", "%00=1", "name=%FF", "name=%ED%A0%80"])
def test_it_survives_characters_that_no_record_can_hold(api: Any, query: str) -> None:
    answer = api.get(f"{CUSTOMERS}?{query}")

    assert answer.status_code in (200, 400)
    assert answer.status_code == 200 or answer["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "text/plain", "application/xml", "nonsense", ""])
def test_it_takes_nothing_but_json(api: Any, kind: str) -> None:
    answer = api.post(CUSTOMERS, b'{"name": "Ann"}', Content_Type=kind)

    assert_refused(answer, 415, "unsupported_media_type")
    assert Customer.objects.count() == 0


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("DELETE", CUSTOMERS),
        ("PUT", CUSTOMERS),
        ("POST", f"{CUSTOMERS}01890000-0000-7000-8000-000000000000/"),
        ("TRACE", CUSTOMERS),
    ],
)
def test_it_refuses_methods_that_it_does_not_have(api: Any, method: str, path: str) -> None:
    answer = api(method, path, {"name": "Ann"})

    assert_refused(answer, 405, "method_not_allowed")
