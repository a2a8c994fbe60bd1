"""``manage.py conflicts list|resolve``: what a person must decide between a customer and its remote record."""

from __future__ import annotations

import json
from argparse import ArgumentTypeError
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError, CommandParser

from customers.errors import CustomerError
from customers.instants import instant_text
from customers.models import Conflict
from customers.sync.advice import conflict_advice
from customers.sync.resolutions import conflict_resolve, conflict_sides
from operations.identifiers import uuid_of
from operations.shell import shell_actor


class Command(BaseCommand):
    """``list`` exits with 1 when any is open; ``resolve`` when a decision could not be made."""

    help = "List open conflicts, and decide whose value holds."

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        output = CommandParser(add_help=False)
        output.add_argument("--json", action="store_true", help="print one JSON document")

        found = verbs.add_parser("list", parents=[output], help="show open conflicts, newest first")
        found.add_argument("--customer", type=_customer, metavar="ID", help="of one customer")
        found.add_argument("--limit", type=int, default=50)

        resolve = verbs.add_parser("resolve", parents=[output], help="let the value of one side hold")
        resolve.add_argument("id", type=int, metavar="ID", help="number of the conflict, as list shows it")
        resolve.add_argument("--take", choices=["ours", "theirs"], required=True, help="whose value holds")
        resolve.add_argument("--reason", default="", help="why, for the audit trail")

    def handle(self, *args: Any, **options: Any) -> None:
        getattr(self, f"_{options['verb']}")(options)

    def _list(self, options: dict[str, Any]) -> None:
        if options["limit"] < 1:
            raise CommandError("--limit must be at least 1.")
        rows = Conflict.objects.open().select_related("state").order_by("-pk")
        if options["customer"]:
            rows = rows.filter(state__customer=options["customer"])
        limit = options["limit"]
        found = list(rows[: limit + 1])
        documents = [_document(row) for row in found[:limit]]
        if options["json"]:
            self.stdout.write(json.dumps(documents, indent=2))
        else:
            lines = [_line(one) for one in documents] or ["No conflict is open."]
            if len(found) > limit:
                lines.append(f"These are the newest {limit}; --limit shows more.")
            self.stdout.write("\n".join(lines))
        if documents:
            raise SystemExit(1)

    def _resolve(self, options: dict[str, Any]) -> None:
        try:
            conflict = conflict_resolve(
                conflict_id=options["id"], take=options["take"], actor=shell_actor(), reason=options["reason"]
            )
        except CustomerError as exc:
            raise CommandError(exc.detail) from exc
        if options["json"]:
            self.stdout.write(json.dumps({"id": conflict.pk, "resolution": conflict.resolution}))
        else:
            self.stdout.write(f"Conflict {conflict.pk} is resolved: {conflict.resolution}.")


def _customer(text: str) -> UUID:
    if (found := uuid_of(text)) is None:
        raise ArgumentTypeError(f"invalid id of a customer: {text!r}")
    return found


def _line(one: dict[str, Any]) -> str:
    about = one["customer"] or f"{one['integration']} {one['remote_id'] or 'without a record'}"
    base, ours, theirs = (json.dumps(one[side], ensure_ascii=False) for side in ("base", "ours", "theirs"))
    agreed = f"agreed before {base}, " if one["kind"] == Conflict.Kind.FIELD else ""
    what = " ".join(filter(None, (one["kind"], one["field"])))
    advice = "" if agreed else conflict_advice(one["kind"])
    take = f"manage.py conflicts resolve {one['id']} --take {' or '.join(one['takes'])}" if one["takes"] else ""
    settled = "".join(f"\n    {line}" for line in (advice, take) if line)
    return f"{one['id']}  {what}  {about}  {agreed}here {ours}, there {theirs}{settled}"


def _document(row: Conflict) -> dict[str, Any]:
    return {
        "id": row.pk,
        "integration": row.state.integration,
        "customer": str(row.state.customer_id) if row.state.customer_id else None,
        "remote_id": row.state.remote_id,
        "kind": row.kind,
        "field": row.field,
        "base": row.base,
        "ours": row.ours,
        "theirs": row.theirs,
        "detail": row.detail,
        "opened_at": instant_text(row.opened_at),
        "takes": list(conflict_sides(row)),
    }
