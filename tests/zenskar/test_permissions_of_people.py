"""A scope lets a person use the API; what the person may do there is what the person may do in the console."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import Resolver404, resolve
from rest_framework.views import APIView

from customers.models import Customer
from tests.zenskar.test_strangers import ALL

pytestmark = [pytest.mark.django_db, pytest.mark.feature("A16")]

MUTATING = {"post", "put", "patch", "delete"}
# What the permission of an action depends on stands in the body.
BODIES: dict[str, dict[str, Any]] = {
    "operations": {"kind": "outbox.replay", "dry_run": True, "filter": {"topic": "customers"}},
    "troubles/retries": {"source": "deliveries", "ids": ["1"]},
    "troubles/notes": {"source": "deliveries", "group": "0" * 32},
}


def mutations() -> Iterator[tuple[str, str]]:
    """Method and address of everything that the API changes."""
    for address in ALL:
        try:
            match = resolve(address)
        except Resolver404:
            # The console's catch-all knows the names of apps alone.
            continue
        view = getattr(match.func, "cls", None)
        if view is None or not issubclass(view, APIView):
            continue
        if "name" in match.kwargs:
            address = re.sub(r"/a(/|$)", r"/customer_directory\1", address, count=1)
        for method in sorted(MUTATING & set(dir(view))):
            yield method, address


@pytest.fixture
def scoped() -> Client:
    """Somebody on the staff with every scope, and with no permission of any action."""
    user = User.objects.create(username="ann", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__startswith="scope_"))
    client = Client()
    client.force_login(user)
    return client


def test_it_looks_at_every_part_of_the_api() -> None:
    found = set(mutations())

    assert len(found) > 60
    assert {
        ("post", "/api/v1/customers/"),
        ("delete", "/customers/a"),
        ("post", "/api/v1/customers/a/conflicts/a/resolution/"),
        ("post", "/api/v1/admin/database/diagnostics"),
        ("post", "/api/v1/admin/projections/customer_directory/replay"),
    } <= found


@pytest.mark.parametrize(("method", "address"), sorted(set(mutations())))
def test_it_asks_people_for_the_permission_of_each_action(scoped: Client, method: str, address: str) -> None:
    tail = re.sub(r"^/(api/v1/)?admin/|/$", "", address)

    answer = getattr(scoped, method)(address, BODIES.get(tail, {}), content_type="application/json")

    assert (answer.status_code, answer.json()["code"]) in {(403, "insufficient_scope"), (403, "not_allowed")}


def test_it_lets_people_do_what_they_have_the_permission_for(scoped: Client) -> None:
    user = User.objects.get()
    user.user_permissions.add(Permission.objects.get(codename="add_customer"))

    answers = [scoped.post("/api/v1/customers/", {"name": "Ada"}, content_type="application/json")]
    answers.append(scoped.delete(f"/api/v1/customers/{Customer.objects.get().pk}/"))

    assert [answer.status_code for answer in answers] == [201, 403]
    assert Customer.objects.get().deleted_at is None
