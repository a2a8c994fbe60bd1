"""Bring the database up to date and make the accounts of the sandbox: migrations, admin, API key.

Run as a process of its own by the supervisor (``python -m zenskar.sandbox.accounts``), with what is known from the last
start as JSON on standard input; the last line that it prints is the accounts as JSON.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
from dataclasses import asdict, dataclass

import django


@dataclass(frozen=True, slots=True, kw_only=True)
class Accounts:
    """How a person and a program log in."""

    admin_user: str
    admin_password: str
    api_key: str


def main() -> None:
    known = json.load(sys.stdin)
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "zenskar.settings")
    django.setup()
    from django.core.management import call_command

    call_command("migrate", interactive=False, verbosity=1)
    accounts = accounts_ensure(
        user=known.get("admin_user", ""), password=known.get("admin_password", ""), token=known.get("api_key", "")
    )
    print(json.dumps(asdict(accounts)))


def accounts_ensure(*, user: str, password: str, token: str) -> Accounts:
    """Keep the admin and the API key of the last start, or make new ones.

    Args:
        user: name of the admin of the last start; empty for none.
        password: its password.
        token: the API key of the last start; empty for none.
    """
    user, password = _admin_ensure(user, password)
    return Accounts(admin_user=user, admin_password=password, api_key=_api_key_ensure(token))


def _admin_ensure(user: str, password: str) -> tuple[str, str]:
    from django.contrib.auth import get_user_model

    users = get_user_model()._default_manager
    known = users.filter(username=user).first() if user else None
    if known is not None and known.is_active and known.is_superuser and known.check_password(password):
        return user, password
    # The database may be somebody's own: an admin whose password we do not know is left alone.
    name = user if user and known is None else "admin"
    if users.filter(username=name).exists():
        name = f"admin-{secrets.token_hex(3)}"
    password = password if name == user else secrets.token_urlsafe(15)
    users.create_superuser(username=name, email="", password=password)
    return name, password


def _api_key_ensure(token: str) -> str:
    from operations.authentication import key_of_token
    from operations.errors import CredentialsRefused
    from operations.keys import apikey_create
    from operations.scopes import Scope

    try:
        key_of_token(token)
    except CredentialsRefused:
        return apikey_create(name="make run", scopes=Scope.values, rate_limit=0).token
    return token


if __name__ == "__main__":
    main()
