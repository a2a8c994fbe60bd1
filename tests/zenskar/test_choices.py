"""Whoever asks for a choice that there is none of is told which there are: every list of the API, and the commands."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from drf_spectacular.generators import SchemaGenerator

from tests.customers.conftest import Api

pytestmark = [pytest.mark.feature("A16"), pytest.mark.django_db]

IN_ADDRESSES = defaultdict(lambda: "1", name="customer_directory")


def choices() -> list[tuple[str, str, list[str]]]:
    """Each parameter of a list that takes one of some words, as the API describes itself."""
    schema: dict[str, Any] = SchemaGenerator().get_schema(request=None, public=True)
    found = []
    for path, verbs in schema["paths"].items():
        for parameter in verbs.get("get", {}).get("parameters", []):
            words = parameter["schema"].get("enum")
            if parameter["in"] == "query" and words:
                found.append((path.format_map(IN_ADDRESSES), parameter["name"], [str(word) for word in words]))
    return found


def test_every_list_of_the_api_names_its_choices() -> None:
    key = Api("operations:read", "customers:read", "customers:export")
    tried = choices()

    silent = []
    for address, name, words in tried:
        answer = key.get(f"{address}?{name}=nonsense")
        told = answer.json()["detail"]
        if answer.status_code != 400 or not all(word in told for word in words):
            silent.append((address, name, answer.status_code, told))

    assert silent == []
    assert {name for _, name, _ in tried} >= {"status", "state", "kind", "ordering", "sync_status", "error_class"}


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("/api/v1/customers/?integration=nope", "One of: stripe."),
        ("/api/v1/customers/?include_deleted=maybe", "One of: true, false."),
        ("/api/v1/admin/operations/?kind=nope", "customers.reconcile"),
        ("/api/v1/admin/troubles/?source=nope", "proposals"),
    ],
)
def test_a_list_names_what_it_looks_up(address: str, told: str) -> None:
    answer = Api("operations:read", "customers:read").get(address)

    assert answer.status_code == 400
    assert told in answer.content.decode()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["outbox_pause", "nope", "--reason", "x"], "kafka"),
        (["outbox_resume", "nope"], "kafka"),
        (["relay", "--subscriber", "nope", "--once"], "kafka"),
        (["operations", "list", "--kind", "nope"], "customers.reconcile"),
        (["operations", "plan", "customers.reconcile", "--filter", '{"only": ["nope"]}'], "missing_here"),
        (["projection_failures", "list", "--projection", "nope"], "customer_directory"),
        (["troubles", "list", "--source", "nope"], "proposals"),
    ],
)
def test_a_command_names_its_choices(words: list[str], told: str) -> None:
    with pytest.raises(CommandError, match=told):
        call_command(*words)
