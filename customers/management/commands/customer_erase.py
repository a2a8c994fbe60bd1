"""``manage.py customer_erase``: erase one customer's personal data, everywhere."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError, CommandParser

from customers.api.serializers import erasure_representation
from customers.erasing.obstacles import erasure_allow, erasure_obstacles
from customers.erasing.services import customer_erase
from customers.errors import CustomerError
from customers.models import Customer, Erasure
from operations.shell import shell_actor


class Command(BaseCommand):
    """Exits with 1 when there is no such customer, or when something live hangs on its record elsewhere.

    Asked again, it tells how far the erasure has come.
    """

    help = "Erase one customer's personal data, here and in integrations. Only says so, unless --apply is given."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("id", type=UUID, help="of the customer; deleted ones too")
        parser.add_argument("--apply", action="store_true", help="do it; this cannot be undone")
        parser.add_argument(
            "--despite-obstacles",
            action="store_true",
            help="also while something live, as a subscription, hangs on the record in an integration",
        )
        parser.add_argument("--json", action="store_true", help="print one JSON document")

    def handle(self, *args: Any, **options: Any) -> None:
        customer_id: UUID = options["id"]
        if not options["apply"]:
            found = Customer.objects.filter(pk=customer_id).first()
            if found is None:
                raise CommandError("There is no such customer.")
            if (erased := Erasure.objects.filter(pk=customer_id).first()) is not None:
                self._tell(erased, options)
                return
            what = "deleted" if found.deleted_at else "active"
            said = f"Customer {customer_id} ({what}, version {found.version}) would be erased for good. Add --apply."
            obstacles = erasure_obstacles(customer_id)
            if obstacles:
                said += "\n" + "\n".join([*obstacles, "It is refused unless --despite-obstacles is given."])
            document = {"customer_id": str(customer_id), "applied": False, "obstacles": obstacles}
            self.stdout.write(json.dumps(document) if options["json"] else said)
            return
        try:
            if not options["despite_obstacles"]:
                erasure_allow(customer_id)
            erasure = customer_erase(customer_id=customer_id, actor=shell_actor(), origin="shell")
        except CustomerError as exc:
            raise CommandError(exc.detail) from exc
        self._tell(erasure, options)

    def _tell(self, erasure: Erasure, options: dict[str, Any]) -> None:
        if options["json"]:
            self.stdout.write(json.dumps(erasure_representation(erasure)))
        elif erasure.finished_at:
            self.stdout.write(f"Customer {erasure.pk} is erased; nothing can bring the data back.")
        else:
            self.stdout.write(f"Customer {erasure.pk} is erased; waits for {'; '.join(erasure.waits_for)}.")
