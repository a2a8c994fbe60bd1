"""A customer of the catalogue: the row that integrations are kept the same with."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from typing import Final
from uuid import UUID

import orjson
from django.db import connections, models
from django.db.models import F, Func, Q, QuerySet, Value
from django.db.models.functions import Coalesce, Collate, Lower
from django.db.models.lookups import Exact, GreaterThanOrEqual, LessThan
from django.utils import timezone
from uuid_utils.compat import uuid7

from customers.locks import email_key

_LAST_CHARACTER: Final = "\U0010ffff"
_INSERTED: Final = ("id", "name", "email", "phone", "address", "metadata", "version", "created_at", "updated_at")


# Serves insert_unless_taken. Rows whose e-mail is taken, by an active customer or by an earlier row of the statement,
# are left out by the unique index itself, so a customer created meanwhile cannot slip in between. So are those whose
# e-mail a protected change has reserved; one that is reserved at this very moment is found by that change's own insert.
# The rows come as one JSON text: arrays of a column each cost the client ten times as much to write.
INSERT_SQL: Final = """
INSERT INTO customers_customer (id, name, email, phone, address, metadata, version, created_at, updated_at)
SELECT id, name, email, phone, address, metadata, version, created_at, updated_at
  FROM json_to_recordset(%(rows)s::json)
       AS new (id uuid, name text, email text, phone text, address jsonb, metadata jsonb, version int,
               created_at timestamptz, updated_at timestamptz, email_key text)
 WHERE NOT EXISTS (SELECT 1 FROM operations_lock l WHERE l.kind = 'email' AND l.key = email_key)
    ON CONFLICT (lower(email)) WHERE deleted_at IS NULL DO NOTHING
RETURNING id
"""


def name_key() -> Collate:
    """What names are found and ordered by: any case alike, a missing name like an empty one, in the order of bytes.

    The order of bytes makes a prefix a range of the index in every locale of the database.
    """
    return Collate(Lower(Coalesce("name", Value(""))), "C")


def _is_object(column: str) -> Exact:
    return Exact(Func(F(column), function="jsonb_typeof", output_field=models.TextField()), Value("object"))


class CustomerQuerySet(QuerySet["Customer"]):
    """Sets of customers."""

    def active(self) -> CustomerQuerySet:
        """Those that were not deleted."""
        return self.filter(deleted_at__isnull=True)

    def with_email(self, email: str) -> CustomerQuerySet:
        """Those with this e-mail in any case, deleted ones too.

        The two halves hold every row; written apart, each is answered by a partial index of its own.
        """
        # Lowered here as well: a database with the locale C knows the capitals of ASCII alone.
        same = Exact(Lower("email"), Lower(Value(email.lower())))
        return self.filter(Q(same, deleted_at__isnull=True) | Q(same, deleted_at__isnull=False))

    def with_name_prefix(self, prefix: str) -> CustomerQuerySet:
        """Those whose name begins so, in any case.

        A range in the order of bytes instead of LIKE: what people type has no wildcards, and an index serves it.
        """
        prefix = unicodedata.normalize("NFC", prefix)
        low, high = Lower(Value(prefix)), Lower(Value(prefix + _LAST_CHARACTER))
        return self.filter(GreaterThanOrEqual(name_key(), low), LessThan(name_key(), high))

    def insert_unless_taken(self, customers: Iterable[Customer]) -> set[UUID]:
        """Insert new customers in one statement, save those whose e-mail is taken; return the ids of those inserted.

        A statement of its own because the ORM cannot name the unique index; and half as dear as the ORM's INSERT.
        """
        # By e-mail, so that two calls that share e-mails wait for each other in the same order and do not deadlock; the
        # sort is stable, so of two rows with one e-mail the earlier one has it.
        ordered = sorted(customers, key=lambda customer: (customer.email or "").lower())
        rows = [
            {name: getattr(customer, name) for name in _INSERTED}
            | {"email_key": email_key(customer.email) if customer.email else None}
            for customer in ordered
        ]
        with connections[self.db].cursor() as cursor:
            cursor.execute(INSERT_SQL, {"rows": orjson.dumps(rows).decode()})
            inserted = {row[0] for row in cursor.fetchall()}
        for customer in ordered:
            customer._state.adding, customer._state.db = customer.pk not in inserted, self.db
        return inserted


class Customer(models.Model):
    """One customer. It is changed by ``customers.changing`` alone, which writes its event in the same transaction.

    Deleted is terminal: ``deleted_at`` is set once, the row stays, and its e-mail is free again.
    """

    # Columns are as wide as Stripe's, whose accounts hold values that our own API refuses.
    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    name = models.CharField(max_length=256, null=True, blank=True)
    email = models.CharField(max_length=512, null=True, blank=True)
    phone = models.CharField(max_length=20, null=True, blank=True)
    address = models.JSONField(default=dict, blank=True, help_text="Stripe's address keys, those that have a value")
    metadata = models.JSONField(default=dict, blank=True, help_text="strings by strings")
    version = models.PositiveIntegerField(default=1, help_text="1 at first, one more with every change")
    created_at = models.DateTimeField(default=timezone.now)
    updated_at = models.DateTimeField(default=timezone.now)
    deleted_at = models.DateTimeField(null=True, blank=True)
    erased_at = models.DateTimeField(null=True, blank=True, help_text="when its personal data was erased")

    event_id: int | None = None
    """Of the event that told of the change just made with this instance; not a column."""

    objects = CustomerQuerySet.as_manager()

    class Meta:
        permissions = [
            ("erase_customer", "Can erase customers' personal data"),
            ("export_customer", "Can export customers' data"),
        ]
        constraints = [
            # Closes the race of two writers that both saw the e-mail free. Its index also serves the list's filter by
            # e-mail.
            models.UniqueConstraint(
                Lower("email"), condition=Q(deleted_at__isnull=True), name="customers_customer_email_active_uniq"
            ),
            models.CheckConstraint(condition=Q(version__gte=1), name="customers_customer_version_positive"),
            models.CheckConstraint(condition=~Q(name=""), name="customers_customer_name_filled"),
            models.CheckConstraint(condition=~Q(email=""), name="customers_customer_email_filled"),
            models.CheckConstraint(condition=~Q(phone=""), name="customers_customer_phone_filled"),
            models.CheckConstraint(condition=_is_object("address"), name="customers_customer_address_object"),
            models.CheckConstraint(condition=_is_object("metadata"), name="customers_customer_metadata_object"),
            # What is erased is deleted, and stays empty.
            models.CheckConstraint(
                condition=Q(erased_at__isnull=True)
                | Q(
                    deleted_at__isnull=False,
                    name__isnull=True,
                    email__isnull=True,
                    phone__isnull=True,
                    address={},
                    metadata={},
                ),
                name="customers_customer_erased_empty",
            ),
            # Integrations keep our id under this key: a customer's own value would overwrite it there.
            models.CheckConstraint(
                condition=~Q(metadata__has_key="zenskar_id"), name="customers_customer_metadata_not_ours"
            ),
        ]
        indexes = [
            # The list with deleted ones, by e-mail: the half that the unique index of active ones does not hold.
            models.Index(Lower("email"), condition=Q(deleted_at__isnull=False), name="customer_deleted_email"),
            # The list by prefix of the name, and ordered by name.
            models.Index(name_key(), F("id"), name="customer_by_name"),
            # The list in its usual order, and by range of creation; backwards for newest first.
            models.Index("created_at", "id", name="customer_by_created"),
            # The list ordered by last change, and by its range.
            models.Index("updated_at", "id", name="customer_by_updated"),
        ]

    def __str__(self) -> str:
        return self.name or self.email or str(self.pk)
