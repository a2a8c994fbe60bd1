"""Reading one customer with where it stands with each integration: the hottest read there is, in one statement."""

from __future__ import annotations

from functools import cache
from typing import Final, NamedTuple
from uuid import UUID

import orjson
from django.db import connections

from customers.models import Customer

# By both primary key and the unique index of (integration, customer) or that of the foreign key. Written out, since
# building two statements through the ORM and fetching them one after the other takes three times as long.
READ_SQL: Final = """
SELECT {columns},
       (SELECT json_agg(json_build_array(s.integration, s.status, s.remote_id))::text
          FROM customers_syncstate s WHERE s.customer_id = c.id)
  FROM customers_customer c WHERE c.id = %s
"""


class SyncedTo(NamedTuple):
    """Where a customer stands with one integration."""

    integration: str
    status: str
    remote_id: str | None


def customer_read(customer_id: UUID) -> tuple[Customer, list[SyncedTo]] | None:
    """The customer, deleted or not, and where it stands; None when there never was one."""
    alias = Customer.objects.db
    with connections[alias].cursor() as cursor:
        cursor.execute(_read_sql(), [customer_id])
        row = cursor.fetchone()
    if row is None:
        return None
    *values, states = row
    fields = Customer._meta.concrete_fields
    # JSON columns come as text from a statement that the ORM did not make.
    read = [
        orjson.loads(value) if field.get_internal_type() == "JSONField" and isinstance(value, str) else value
        for field, value in zip(fields, values, strict=True)
    ]
    customer = Customer.from_db(alias, _names(), read)
    return customer, [SyncedTo._make(state) for state in orjson.loads(states or "[]")]


@cache
def _names() -> list[str]:
    return [field.attname for field in Customer._meta.concrete_fields]


@cache
def _read_sql() -> str:
    columns = ", ".join(f"c.{field.column}" for field in Customer._meta.concrete_fields)
    return READ_SQL.format(columns=columns)
