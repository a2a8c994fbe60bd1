"""API keys: hashed, prefixed, scoped, expiring."""

from __future__ import annotations

import datetime as dt
from functools import cache
from typing import Final

from django.contrib.postgres.fields import ArrayField
from django.db import connections, models
from django.db.models import F
from django.db.models.functions import Now
from django.utils import timezone

from operations.scopes import SCOPE_PERMISSIONS, Scope

USE_RECORDED_EVERY: Final = dt.timedelta(minutes=1)


# Serves ApiKeyQuerySet.record_use. The condition stands in the statement, so requests that race write once. A row that
# somebody else is just writing is left alone instead of waited for: no request ever queues behind this.
RECORD_USE_SQL: Final = """
UPDATE operations_apikey SET last_used_at = clock_timestamp() WHERE id = (
    SELECT id FROM operations_apikey
     WHERE id = %s AND (last_used_at IS NULL OR last_used_at < clock_timestamp() - make_interval(secs => %s))
       FOR UPDATE SKIP LOCKED)
"""

# Serves ApiKeyQuerySet.by_prefix, which every request of the API begins with: written out, since building the same
# statement through the ORM takes longer than running it.
BY_PREFIX_SQL: Final = """
SELECT {columns} FROM operations_apikey WHERE prefix = %s
"""


class ApiKeyQuerySet(models.QuerySet["ApiKey"]):
    def by_prefix(self, prefix: str) -> ApiKey | None:
        """The key of this prefix, by its unique index."""
        with connections[self.db].cursor() as cursor:
            cursor.execute(_by_prefix_sql(), [prefix])
            row = cursor.fetchone()
        return None if row is None else ApiKey.from_db(self.db, _columns(), row)

    def record_use(self, pk: int) -> int:
        """Note that the key was used, at most once a minute however many requests carry it; returns rows changed."""
        with connections[self.db].cursor() as cursor:
            cursor.execute(RECORD_USE_SQL, [pk, USE_RECORDED_EVERY.total_seconds()])
            return int(cursor.rowcount)


@cache
def _columns() -> list[str]:
    return [field.attname for field in ApiKey._meta.concrete_fields]


@cache
def _by_prefix_sql() -> str:
    return BY_PREFIX_SQL.format(columns=", ".join(_columns()))


class ApiKey(models.Model):
    """A key that a program calls the API with. The key itself is shown once and never stored."""

    name = models.CharField(max_length=100)
    prefix = models.CharField(max_length=16, unique=True, editable=False)
    digest = models.CharField(max_length=64, editable=False)
    scopes = ArrayField(models.CharField(max_length=40, choices=Scope.choices))
    rate_limit = models.PositiveIntegerField(
        null=True, blank=True, help_text="Requests a minute; 0 is unlimited, empty is the default."
    )
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True)
    # Unique: two rotations at once cannot both leave a successor.
    rotated_from = models.OneToOneField(
        "self", null=True, blank=True, on_delete=models.SET_NULL, related_name="rotated_to", editable=False
    )

    objects = ApiKeyQuerySet.as_manager()

    class Meta:
        verbose_name = "API key"
        verbose_name_plural = "API keys"
        permissions = [*SCOPE_PERMISSIONS, ("revoke_apikey", "Can revoke API key")]
        indexes = [
            # The console's count of keys that end soon, and its list of those that ended.
            models.Index("expires_at", condition=models.Q(revoked_at=None), name="apikey_ends"),
            # The console's list of keys that were revoked, newest first.
            models.Index(F("id").desc(), condition=models.Q(revoked_at__isnull=False), name="apikey_revoked"),
        ]
        constraints = [
            models.CheckConstraint(condition=models.Q(digest__regex="^[0-9a-f]{64}$"), name="operations_apikey_digest"),
        ]

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix})"

    def is_usable(self, now: dt.datetime) -> bool:
        """Whether the key opens anything at ``now``: neither revoked nor expired."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)

    def use_is_stale(self, now: dt.datetime) -> bool:
        """Whether ``last_used_at`` is old enough to be written again."""
        return self.last_used_at is None or now - self.last_used_at > USE_RECORDED_EVERY

    def revoke(self) -> None:
        """Close the key for good, at once."""
        if self.revoked_at is None:
            self.revoked_at = timezone.now()
            self.save(update_fields=["revoked_at"])

    def expire_at(self, moment: dt.datetime) -> None:
        """Let the key end at ``moment``, unless it ends earlier anyhow."""
        if self.expires_at is None or moment < self.expires_at:
            self.expires_at = moment
            self.save(update_fields=["expires_at"])
