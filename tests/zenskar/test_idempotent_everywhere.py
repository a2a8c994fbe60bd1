from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver

from operations.models import AuditEntry
from tests.operations.conftest import api, issued  # noqa: F401 - fixtures

pytestmark = pytest.mark.feature("C10")

# Another service's messages: it has no keys of ours, and each message has an id of its own.
OTHERS = {"StripeWebhookView"}
# Asks the other side for five seconds; it has tests of its own beside one that answers.
SLOW = "customers/cleanup-orphaned/"


def views(resolver: URLResolver, before: str = "") -> Iterator[tuple[str, Any]]:
    for part in resolver.url_patterns:
        address = before + str(part.pattern)
        if isinstance(part, URLResolver):
            yield from views(part, address)
        elif isinstance(part, URLPattern) and hasattr(part.callback, "cls"):
            yield address, part.callback.cls


def test_every_address_that_changes_something_honours_keys() -> None:
    handlers = [
        (method, address, getattr(view, method))
        for address, view in views(get_resolver())
        for method in ("post", "put", "patch", "delete")
        if hasattr(view, method) and view.__name__ not in OTHERS
    ]

    without = [f"{method} {address}" for method, address, one in handlers if not getattr(one, "is_idempotent", False)]

    assert len(handlers) > 40
    assert without == []


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("path", ["outbox/process", "database/diagnostics"])
def test_what_is_no_transaction_is_done_once_too(api: Client, path: str) -> None:  # noqa: F811
    def ask(address: str) -> Any:
        return api.post(address, {}, "application/json", headers={"Idempotency-Key": "k"})

    first, second = ask(f"/api/v1/admin/{path}"), ask(f"/admin/{path}/")

    assert first.status_code == second.status_code == 200
    assert first.content == second.content
    assert second["Idempotent-Replayed"] == "true"
    assert AuditEntry.objects.exclude(action="apikey.created").count() == 1


@pytest.mark.django_db(transaction=True)
def test_what_went_wrong_there_can_be_asked_again_with_its_key(api: Client, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    def fail(**_: object) -> int:
        raise RuntimeError("nothing came of it")

    with monkeypatch.context() as broken:
        broken.setattr("outbox.api.views.relay_once", fail)
        api.raise_request_exception = False
        failed = api.post("/admin/outbox/process", {}, "application/json", headers={"Idempotency-Key": "k"})
    done = api.post("/admin/outbox/process", {}, "application/json", headers={"Idempotency-Key": "k"})

    assert (failed.status_code, done.status_code) == (500, 200)
    assert "Idempotent-Replayed" not in done


@pytest.mark.django_db(transaction=True)
def test_with_a_key_each_of_them_does_what_it_does_without(api: Client) -> None:  # noqa: F811
    addresses = {
        (method, re.sub(r"<[^>]*>|\(\?P<[^)]*\)", "1", address))
        for address, view in views(get_resolver())
        for method in ("post", "put", "patch", "delete")
        if hasattr(view, method) and view.__name__ not in OTHERS
        if address.endswith("/") and not address.endswith(SLOW)
    }
    api.raise_request_exception = False

    def ask(method: str, address: str, **headers: str) -> int:
        return api.generic(method, f"/{address}", "{}", content_type="application/json", headers=headers).status_code

    differing = {}
    for number, (method, address) in enumerate(sorted(addresses)):
        without, with_key = ask(method, address), ask(method, address, **{"Idempotency-Key": str(number)})
        if without != with_key or with_key >= 500:
            differing[f"{method} {address}"] = (without, with_key)

    assert differing == {}
