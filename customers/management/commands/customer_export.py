"""``manage.py customer_export``: all data of one customer as JSON, or the list of all as CSV."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError, CommandParser

from customers.errors import CustomerError
from customers.exporting.documents import customer_export, document_text
from customers.exporting.lists import customers_csv
from customers.models import Customer
from operations.audit import audit_record
from operations.shell import shell_actor


class Command(BaseCommand):
    """Exits with 1 when there is no such customer, or the file is there already."""

    help = "Print all data of one customer as JSON, or with --list all customers as CSV."

    def add_arguments(self, parser: CommandParser) -> None:
        what = parser.add_mutually_exclusive_group(required=True)
        what.add_argument("id", nargs="?", type=UUID, help="of the customer; deleted ones too")
        what.add_argument("--list", action="store_true", help="all customers that are not deleted, one a line")
        parser.add_argument("--output", type=Path, metavar="FILE", help="a new file; without one, standard output")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            parts = self._list() if options["list"] else self._one(options["id"])
        except CustomerError as exc:
            raise CommandError(exc.detail) from exc
        if options["output"] is None:
            for part in parts:
                sys.stdout.buffer.write(part)
            sys.stdout.flush()
            return
        try:
            # For its owner alone: it is people's data.
            options["output"].touch(mode=0o600, exist_ok=False)
            with options["output"].open("wb") as file:
                file.writelines(parts)
        except OSError as exc:
            raise CommandError(f"{options['output']}: {exc.strerror}") from exc

    def _one(self, customer_id: UUID) -> Iterable[bytes]:
        return [document_text(customer_export(customer_id=customer_id, actor=shell_actor()))]

    def _list(self) -> Iterable[bytes]:
        audit_record(actor=shell_actor(), action="customers.exported", detail={"filters": []})
        pages = customers_csv(Customer.objects.all().active(), ordering="created_at")
        return (page.encode() for page in pages)
