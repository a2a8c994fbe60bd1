from __future__ import annotations

import io
import json
from typing import Any

import pytest
from django.http import HttpResponse
from django.test import Client

from tests.operations.probe_urls import ProbeView

pytestmark = [pytest.mark.django_db, pytest.mark.urls("tests.operations.probe_urls"), pytest.mark.feature("A16")]


@pytest.fixture(autouse=True)
def _nothing_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ProbeView, "taken", [])


def send(client: Client, body: bytes, content_type: str = "application/json") -> HttpResponse:
    return client.post("/api/probe", data=body, content_type=content_type)


def assert_problem(response: HttpResponse, status: int, code: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(response.content)
    assert (response.status_code, document["code"]) == (status, code), document
    assert response["Content-Type"] == "application/problem+json"
    assert document["status"] == status
    assert document["type"].startswith("urn:zenskar:problem:")
    assert document["title"]
    assert document["detail"]
    assert document["correlation_id"] == response["X-Correlation-ID"]
    assert ProbeView.taken == []
    return document


def test_it_takes_a_good_body(api: Client) -> None:
    response = send(api, '{"name": "Zoë \\ud83d\\ude00", "address": {"city": "Köln"}}'.encode())

    assert response.status_code == 200
    assert response.json() == {"name": "Zoë 😀", "address": {"city": "Köln"}}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"name": "a"} x',
        b"name=a",
        b'{"name": NaN}',
        b'{"name": -Infinity}',
        b'{"name": 1e999}',
        b'{"name": ' + b"9" * 5000 + b"}",
        b'{"name": "\xff\xfe"}',
        b'{"name": "\xed\xa0\x80"}',
        b'{"name": "a\x00b"}',
        b'{"name": "a", "name": "b"}',
        b"\xef\xbb\xbf{}",
        b"[" * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b'{"a":' * 100_000,
        b'{"name": "' + b"\\" * 99 + b'"' + b"[" * 1000,
    ],
    ids=lambda body: repr(body[:24]),
)
def test_it_refuses_what_is_not_json(api: Client, body: bytes) -> None:
    response = send(api, body)

    if body:
        assert_problem(response, 400, "malformed_json")
    else:
        assert_problem(response, 400, "validation_failed")


@pytest.mark.parametrize("escape", ["\\u0000", "\\ud800", "\\udc00x", "\\ude00\\ud83d"])
def test_it_refuses_what_cannot_be_stored_and_points_at_it(api: Client, escape: str) -> None:
    response = send(api, f'{{"name": "a", "address": {{"city/a": ["x", "b{escape}"]}}}}'.encode())

    document = assert_problem(response, 400, "malformed_json")
    assert [error["pointer"] for error in document["errors"]] == ["/address/city~1a/1"]
    assert document["errors"][0]["code"] == "invalid_characters"


def test_it_refuses_a_key_that_cannot_be_stored(api: Client) -> None:
    response = send(api, b'{"name": "a", "a\\u0000": 1}')

    assert assert_problem(response, 400, "malformed_json")["errors"][0]["pointer"] == ""


def test_it_counts_no_brackets_inside_strings(api: Client) -> None:
    response = send(api, json.dumps({"name": "a", "address": {"city": "[" * 9}, "tags": ["[" * 3] * 50}).encode())

    assert response.status_code == 200


def test_it_names_every_unknown_field(api: Client) -> None:
    response = send(api, b'{"name": "a", "nmae": 1, "id": "7", "address": {"city": "x", "zip": 1}}')

    document = assert_problem(response, 400, "validation_failed")
    assert {(error["pointer"], error["code"]) for error in document["errors"]} == {
        ("/nmae", "unknown_field"),
        ("/id", "read_only_field"),
        ("/address/zip", "unknown_field"),
    }


def test_it_points_at_every_wrong_value(api: Client) -> None:
    response = send(api, b'{"tags": ["abc", "abcd", null], "address": []}')

    document = assert_problem(response, 400, "validation_failed")
    assert {(error["pointer"], error["code"]) for error in document["errors"]} == {
        ("/name", "required_field"),
        ("/tags/1", "max_length"),
        ("/tags/2", "required_field"),
        ("/address", "invalid_value"),
    }


@pytest.mark.parametrize("body", [b"[]", b'"a"', b"3", b"null", b"true"])
def test_it_refuses_json_that_is_no_object(api: Client, body: bytes) -> None:
    response = send(api, body)

    assert_problem(response, 400, "validation_failed")


def test_it_lets_a_client_put_back_what_it_got(api: Client) -> None:
    response = api.put("/api/forgiving", data=b'{"id": "7", "name": "a"}', content_type="application/json")

    assert response.status_code == 200
    assert response.json() == {"name": "a"}


@pytest.mark.parametrize("size", [1024 * 1024 + 1, 10 * 1024 * 1024])
def test_it_refuses_a_large_body(api: Client, size: int) -> None:
    response = send(api, b'{"name": "' + b"a" * (size - 12) + b'"}')

    assert_problem(response, 413, "body_too_large")


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_it_refuses_what_does_not_call_itself_json(api: Client, content_type: str) -> None:
    response = send(api, b'{"name": "a"}', content_type)

    assert_problem(response, 415, "unsupported_media_type")


def test_it_refuses_a_body_of_unknown_length(api: Client) -> None:
    response = api.generic(
        "POST", "/api/probe", headers={"Transfer-Encoding": "chunked", "Content-Type": "application/json"}
    )

    assert_problem(response, 411, "length_required")


@pytest.mark.parametrize(
    "address",
    ["/api/probe?q=%00", "/api/%00", "/admin/%00/", "/api/probe?q=%ff", "/api/probe?q=%ed%a0%80", "/api/probe?%c3=1"],
)
def test_it_refuses_an_address_that_is_no_text(api: Client, address: str) -> None:
    response = api.get(address)

    assert_problem(response, 400, "malformed_request")


def test_it_takes_any_text_in_an_address(api: Client) -> None:
    response = api.get("/api/probe?q=%F0%9F%98%80&name=a+b%25")

    assert response.status_code == 200


class Broken(io.RawIOBase):
    """The connection of a client that failed while it sent."""

    def __init__(self, error: OSError) -> None:
        self.error = error

    def read(self, size: int = -1) -> bytes:
        raise self.error


@pytest.mark.parametrize("content_type", ["application/json", "application/x-www-form-urlencoded"])
def test_it_carries_out_no_half_of_a_request(api: Client, content_type: str) -> None:
    body = b'{"name": "a"}'
    environ: dict[str, Any] = {"wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": "100"}

    response = api.post("/api/probe", data=body, content_type=content_type, **environ)

    assert_problem(response, 400, "body_cut_off")


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (ConnectionResetError(), 400, "body_cut_off"),
        (OSError(), 400, "body_cut_off"),
        (TimeoutError(), 408, "body_too_slow"),
    ],
)
def test_it_says_what_became_of_a_body_that_broke_off(api: Client, error: OSError, status: int, code: str) -> None:
    environ: dict[str, Any] = {"wsgi.input": Broken(error), "CONTENT_LENGTH": "100"}

    response = api.post("/api/probe", data=b"", content_type="application/json", **environ)

    assert_problem(response, status, code)
