"""Every address, asked by somebody without credentials, with bad ones, without being staff, and by mere readers."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.http import HttpResponse
from django.test import Client
from django.urls import Resolver404, URLPattern, URLResolver, get_resolver, resolve
from django.urls.resolvers import RegexPattern, RoutePattern
from django.utils import timezone

from operations.keys import apikey_create
from operations.models import ApiKey
from operations.scopes import Scope
from tests.operations.conftest import MakeClient

pytestmark = [pytest.mark.django_db, pytest.mark.feature("A16")]

OPEN = {"/livez", "/livez/", "/readyz", "/readyz/"}
"""Addresses that answer strangers. Adding one is a decision."""
LOGIN = {"/admin/login/", "/admin/logout/"}
SIGNED = {"/webhooks/stripe", "/webhooks/stripe/", "/api/v1/webhooks/stripe", "/api/v1/webhooks/stripe/"}
"""Addresses that look at a signature instead of credentials."""

SAMPLES = {"str": "a", "int": "1", "uuid": "019a8f6e-6a1b-7c3d-9e4f-5a6b7c8d9e0f", "slug": "a", "path": "a"}


def addresses(patterns: list[Any] | None = None, prefix: str = "") -> Iterator[str]:
    """Every address of the URL table, with and without its optional parts, placeholders filled in."""
    for entry in get_resolver().url_patterns if patterns is None else patterns:
        for text in _texts(entry):
            if isinstance(entry, URLResolver):
                yield from addresses(entry.url_patterns, prefix + text)
            elif isinstance(entry, URLPattern):
                yield "/" + prefix + text


def _texts(entry: URLPattern | URLResolver) -> list[str]:
    pattern = entry.pattern
    if isinstance(pattern, RoutePattern):
        return [re.sub(r"<(?:(\w+):)?\w+>", lambda match: SAMPLES[match[1] or "str"], str(pattern))]
    assert isinstance(pattern, RegexPattern), pattern
    return _expansions(str(pattern).removeprefix("^").removesuffix("$").replace(r"\Z", ""))


def _expansions(regex: str) -> list[str]:
    """The addresses that a regular expression of a URL table stands for, as far as such tables go."""
    regex = re.sub(r"\(\?P<\w+>[^()]*\)", "a", regex)
    if optional := re.search(r"\(\?:([^()]*)\)\?", regex) or re.search(r"(\w|/|-)\?", regex):
        before, after = regex[: optional.start()], regex[optional.end() :]
        return [*_expansions(before + after), *_expansions(before + optional[1] + after)]
    if choice := re.search(r"\((?:\?:)?([^()]*\|[^()]*)\)", regex):
        before, after = regex[: choice.start()], regex[choice.end() :]
        return [text for word in choice[1].split("|") for text in _expansions(before + word + after)]
    plain = regex.replace("\\", "")
    assert not re.search(r"[()*+?\[\]|^$]", plain), f"teach this test to read {regex!r}"
    return [plain]


ALL = sorted(set(addresses()))


def assert_closed(response: HttpResponse, address: str) -> None:
    if response.status_code == 302:
        assert response["Location"].startswith("/admin/"), (address, response["Location"])
        return
    assert response.status_code in {401, 403, 404, 405}, (address, response.status_code, response.content[:200])
    if response.status_code != 404 and not address.startswith("/admin"):
        assert json.loads(response.content)["code"] in {
            "not_authenticated",
            "insufficient_scope",
            "method_not_allowed",
        }, address


def assert_refused(response: HttpResponse, address: str) -> None:
    if response.status_code == 302:
        assert response["Location"].startswith("/admin/"), address
    else:
        assert response.status_code in {401, 403, 404, 405}, (address, response.status_code)


def test_it_knows_the_whole_table() -> None:
    assert {"/", "/metrics", "/api/docs/", "/api/v1/customers/", "/customers/a", "/admin/operations/apikey/"} <= set(
        ALL
    )
    assert set(ALL) >= OPEN | SIGNED | LOGIN


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_it_shows_strangers_nothing(method: str) -> None:
    client = Client()

    for address in sorted(set(ALL) - OPEN - SIGNED - LOGIN):
        assert_closed(client.generic(method, address, b"{}", content_type="application/json"), address)


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_it_shows_people_who_are_no_staff_nothing(staff_client: MakeClient, method: str) -> None:
    client = staff_client("admin", is_staff=False)

    for address in sorted(set(ALL) - OPEN - SIGNED - LOGIN):
        assert_closed(client.generic(method, address, b"{}", content_type="application/json"), address)


@pytest.mark.parametrize("state", ["unknown", "expired", "revoked", "altered"])
def test_it_opens_nothing_to_a_key_that_is_not_good(state: str) -> None:
    """Each address with every such key, and over all of them with every method."""
    issued = apikey_create(name="shop", scopes=Scope.values)
    authorization = issued.authorization
    match state:
        case "unknown":
            ApiKey.objects.all().delete()
        case "expired":
            ApiKey.objects.update(expires_at=timezone.now() - dt.timedelta(seconds=1))
        case "revoked":
            ApiKey.objects.update(revoked_at=timezone.now())
        case "altered":
            authorization = authorization[:-1] + ("a" if authorization[-1] != "a" else "b")
    client = Client(headers={"authorization": authorization})
    methods = ["GET", "POST", "DELETE"] * 2
    first = ["unknown", "expired", "revoked", "altered"].index(state) % 3

    for number, address in enumerate(sorted(set(ALL) - OPEN - SIGNED - LOGIN)):
        method = methods[first + number % 3]
        assert_refused(client.generic(method, address, b"{}", content_type="application/json"), address)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_it_lets_those_who_may_read_write_nothing(staff_client: MakeClient, method: str) -> None:
    key = apikey_create(name="reader", scopes=[scope for scope in Scope.values if scope.endswith(":read")])
    clients = {"key": Client(headers={"authorization": key.authorization}), "viewer": staff_client("viewer")}
    console = {address for address in ALL if address == "/" or _is_console(address)}

    for who, client in clients.items():
        for address in sorted(set(ALL) - OPEN - SIGNED - LOGIN - console):
            response = client.generic(method, address, b"{}", content_type="application/json")
            assert_refused(response, f"{who} at {address}")


def _is_console(address: str) -> bool:
    """Whether the address is a page of the admin's, which asks for permissions itself, or nothing at all."""
    try:
        view = resolve(address).func
    except Resolver404:
        return True
    return hasattr(view, "model_admin") or hasattr(view, "admin_site")


@pytest.mark.parametrize("address", sorted(SIGNED))
def test_it_takes_no_unsigned_webhook(address: str) -> None:
    response = Client(enforce_csrf_checks=True).post(address, b"{}", content_type="application/json")

    assert response.status_code == 400
    assert response["Content-Type"] == "application/problem+json"


def test_it_gives_every_view_of_the_api_its_scopes() -> None:
    """A view without them is refused to everybody, so this is a slip rather than a hole."""
    unscoped = {
        entry.callback.cls.__name__
        for entry in _views(get_resolver().url_patterns)
        if hasattr(entry.callback, "cls") and not hasattr(entry.callback.cls, "required_scopes")
    }

    assert unscoped <= {"StripeWebhookView"}


def _views(patterns: list[Any]) -> Iterator[URLPattern]:
    for entry in patterns:
        if isinstance(entry, URLResolver):
            yield from _views(entry.url_patterns)
        else:
            yield entry
