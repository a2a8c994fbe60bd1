from __future__ import annotations

import io
import json
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from operations.authentication import key_of_token
from operations.errors import CredentialsRefused
from operations.models import ApiKey
from operations.scopes import Scope

pytestmark = [pytest.mark.django_db, pytest.mark.feature("F5")]


def run(*arguments: str) -> str:
    out = io.StringIO()
    call_command("apikey", *arguments, stdout=out)
    return out.getvalue()


def run_json(*arguments: str) -> Any:
    return json.loads(run(*arguments, "--json"))


def test_it_prints_a_working_key_once() -> None:
    printed = run("create", "--name", "shop", "--scope", "customers:read", "--expires-in", "90d")

    token = printed.splitlines()[0]
    key = key_of_token(token)
    assert (key.name, key.scopes) == ("shop", ["customers:read"])
    assert token not in run("list")
    assert key.prefix in run("list")


def test_it_prints_json_for_programs() -> None:
    document = run_json("create", "--name", "shop", "--all-scopes", "--never-expires", "--rate-limit", "0")

    assert document["authorization"] == f"Bearer {document['key']}"
    assert document["scopes"] == sorted(Scope.values)
    assert (document["expires_at"], document["rate_limit"], document["state"]) == (None, 0, "active")
    assert "key" not in run_json("list")[0]


def test_it_rotates_and_revokes() -> None:
    first = run_json("create", "--name", "shop", "--scope", "customers:read")
    second = run_json("rotate", first["prefix"], "--grace", "1h")
    revoked = run_json("revoke", second["prefix"])

    assert key_of_token(first["key"]).name == "shop"
    assert revoked["state"] == "revoked"
    with pytest.raises(CredentialsRefused):
        key_of_token(second["key"])


@pytest.mark.parametrize(
    "arguments",
    [
        ["create", "--name", "shop"],
        ["create", "--name", "shop", "--scope", "all"],
        ["create", "--name", "shop", "--all-scopes", "--expires-in", "soon"],
        ["create", "--name", "shop", "--all-scopes", "--rate-limit", "-1"],
        ["rotate", "nobody"],
        ["revoke", "nobody"],
        [],
    ],
)
def test_it_says_what_is_wrong(arguments: list[str]) -> None:
    with pytest.raises(CommandError):
        run(*arguments)

    assert not ApiKey.objects.exists()


def test_it_lists_keys_as_a_table_with_their_ends() -> None:
    nothing = run("list")
    shop = run_json("create", "--name", "shop", "--scope", "customers:read", "--expires-in", "90d")
    run("create", "--name", "till", "--scope", "customers:read", "--never-expires")

    header, first, second = run("list").splitlines()

    assert nothing == "No keys.\n"
    assert header.split() == ["prefix", "state", "expires", "last", "used", "name", "scopes"]
    assert first.index(shop["expires_at"][:10]) == header.index("expires")
    assert second.index("never") == header.index("expires")
