"""The list of customers as CSV (RFC 4180), page by page, so that ten million take no more memory than ten."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final
from uuid import UUID

import orjson
from django.conf import settings
from django.db.models import QuerySet

from customers.api.pages import page_of
from customers.instants import instant_text
from customers.models import Customer, SyncState
from customers.values import ADDRESS_KEYS

PAGE: Final = 1_000
_BEFORE: Final = ("id", "name", "email", "phone", *(f"address_{key}" for key in ADDRESS_KEYS), "metadata")
_AFTER: Final = ("version", "created_at", "updated_at", "deleted_at")

# What spreadsheets take for the beginning of a formula, in full width too (OWASP, CSV Injection).
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def customers_csv(customers: QuerySet[Customer], *, ordering: str) -> Iterator[str]:
    """Lines of CSV, a page at a time; each page is one query of its own by keyset.

    Customers that are created or changed meanwhile are in it or not; each is in it once.

    Args:
        customers: which.
        ordering: one of ``customers.api.pages.ORDERINGS``.
    """
    integrations = list(settings.INTEGRATIONS)
    states = [f"{name}_{column}" for name in integrations for column in ("status", "remote_id")]
    lines = _Lines()
    writer = csv.writer(lines)
    writer.writerow([*_BEFORE, *_AFTER, *states])
    cursor: str | None = None
    while True:
        page = page_of(customers, ordering=ordering, cursor=cursor, size=PAGE)
        found = _states(page.customers)
        writer.writerows(_row(customer, found, integrations) for customer in page.customers)
        yield lines.taken()
        cursor = page.next
        if cursor is None:
            return


def cell_safe(value: object) -> str:
    """A cell that no spreadsheet takes for a formula: one that begins like one gets an apostrophe before it."""
    text = "" if value is None else str(value)
    return f"'{text}" if text.startswith(_FORMULA) else text


def _states(customers: Sequence[Customer]) -> dict[tuple[UUID | None, str], tuple[str, str | None]]:
    """Status and remote id by customer and integration. Not prefetched: a customer that knows its states and they it
    stay in memory until the garbage collector comes by."""
    found = SyncState.objects.filter(customer__in=[customer.pk for customer in customers])
    rows = found.values_list("customer_id", "integration", "status", "remote_id")
    return {(customer, integration): (status, remote_id) for customer, integration, status, remote_id in rows}


def _row(
    customer: Customer, states: Mapping[tuple[UUID | None, str], tuple[str, str | None]], integrations: list[str]
) -> list[str]:
    found: list[Any] = [customer.pk, customer.name, customer.email, customer.phone]
    found += [customer.address.get(key) for key in ADDRESS_KEYS]
    found.append(orjson.dumps(customer.metadata).decode() if customer.metadata else "")
    found += [customer.version, instant_text(customer.created_at), instant_text(customer.updated_at)]
    found.append(customer.deleted_at and instant_text(customer.deleted_at))
    for name in integrations:
        found += states.get((customer.pk, name), ("pending", None))
    return [cell_safe(value) for value in found]


class _Lines:
    """What the writer of the standard library writes into."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def write(self, text: str) -> int:
        self._lines.append(text)
        return len(text)

    def taken(self) -> str:
        text = "".join(self._lines)
        self._lines.clear()
        return text
