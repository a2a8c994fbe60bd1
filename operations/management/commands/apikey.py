"""``manage.py apikey create|rotate|revoke|list``: the keys that programs call the API with."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from operations.durations import duration
from operations.keys import DEFAULT_LIFETIME, ApiKeyRefused, IssuedKey, apikey_create, apikey_revoke, apikey_rotate
from operations.models import ApiKey
from operations.scopes import Scope
from operations.shell import shell_actor


class Command(BaseCommand):
    """Issue, rotate, revoke and list API keys."""

    help = "Issue, rotate, revoke and list API keys."

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        output = CommandParser(add_help=False)
        output.add_argument("--json", action="store_true", help="print one JSON document")

        create = verbs.add_parser("create", parents=[output], help="issue a key and print it once")
        create.add_argument("--name", required=True, help="what the key is for")
        create.add_argument("--scope", action="append", default=[], metavar="SCOPE", help=", ".join(Scope.values))
        create.add_argument("--all-scopes", action="store_true")
        create.add_argument("--expires-in", type=duration, default=DEFAULT_LIFETIME, help="as 90d; one year by default")
        create.add_argument("--never-expires", action="store_true")
        create.add_argument("--rate-limit", type=int, help="requests a minute; 0 is unlimited")

        rotate = verbs.add_parser("rotate", parents=[output], help="issue a successor and end the old key")
        rotate.add_argument("prefix")
        rotate.add_argument("--grace", type=duration, default=dt.timedelta(0), help="how long the old key still works")

        revoke = verbs.add_parser("revoke", parents=[output], help="close a key at once")
        revoke.add_argument("prefix")

        verbs.add_parser("list", parents=[output], help="show all keys, never their secrets")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            getattr(self, f"_{options['verb']}")(options)
        except ApiKeyRefused as exc:
            raise CommandError(str(exc)) from exc

    def _create(self, options: dict[str, Any]) -> None:
        if options["rate_limit"] is not None and options["rate_limit"] < 0:
            raise CommandError("--rate-limit must not be negative.")
        expires_at = None if options["never_expires"] else timezone.now() + options["expires_in"]
        issued = apikey_create(
            name=options["name"],
            scopes=Scope.values if options["all_scopes"] else options["scope"],
            expires_at=expires_at,
            rate_limit=options["rate_limit"],
            actor=shell_actor(),
        )
        self._show(issued, options)

    def _rotate(self, options: dict[str, Any]) -> None:
        self._show(apikey_rotate(prefix=options["prefix"], grace=options["grace"], actor=shell_actor()), options)

    def _revoke(self, options: dict[str, Any]) -> None:
        key = apikey_revoke(prefix=options["prefix"], actor=shell_actor())
        self.stdout.write(json.dumps(_document(key)) if options["json"] else f"Revoked {key}.")

    def _list(self, options: dict[str, Any]) -> None:
        keys = [_document(key) for key in ApiKey.objects.order_by("pk")]
        if options["json"]:
            self.stdout.write(json.dumps(keys))
            return
        if not keys:
            self.stdout.write("No keys.")
            return
        rows = [("prefix", "state", "expires", "last used", "name", "scopes"), *(_row(key) for key in keys)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            self.stdout.write(line.rstrip())

    def _show(self, issued: IssuedKey, options: dict[str, Any]) -> None:
        if options["json"]:
            document = _document(issued.key) | {"key": issued.token, "authorization": issued.authorization}
            self.stdout.write(json.dumps(document))
        else:
            until = issued.key.expires_at
            ends = "never expires" if until is None else f"expires {until:%Y-%m-%d %H:%M} UTC"
            self.stdout.write(f"{issued.token}\n{issued.key}, {ends}. The key is shown this once.")


def _document(key: ApiKey) -> dict[str, Any]:
    state = "revoked" if key.revoked_at else "active" if key.is_usable(timezone.now()) else "expired"
    moments = {
        name: moment.isoformat() if (moment := getattr(key, name)) else None
        for name in ("created_at", "expires_at", "revoked_at", "last_used_at")
    }
    return {
        "prefix": key.prefix,
        "name": key.name,
        "scopes": key.scopes,
        "rate_limit": key.rate_limit,
        "state": state,
        **moments,
    }


def _row(key: dict[str, Any]) -> tuple[str, ...]:
    expires, used = ((key[name] or "never")[:16].replace("T", " ") for name in ("expires_at", "last_used_at"))
    return key["prefix"], key["state"], expires, used, key["name"], ",".join(key["scopes"])
