"""Issuing, rotating and revoking API keys; every one of these is audited."""

from __future__ import annotations

import datetime as dt
import secrets
import string
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final

from django.utils import timezone

from dbresilience.transactions import run_in_transaction
from operations.audit import SYSTEM, audit_record
from operations.authentication import digest_of
from operations.models import ApiKey
from operations.scopes import Scope

DEFAULT_LIFETIME: Final = dt.timedelta(days=365)
_PREFIX_LETTERS: Final = string.ascii_lowercase + string.digits
_SECRET_LETTERS: Final = string.ascii_letters + string.digits


class ApiKeyRefused(Exception):
    """The key cannot be made, rotated or revoked."""


class ApiKeyUnknown(ApiKeyRefused):
    """There is no API key with this prefix."""


@dataclass(frozen=True, slots=True)
class IssuedKey:
    """A new key, and the one moment at which its token is known."""

    key: ApiKey
    token: str = field(repr=False)

    @property
    def authorization(self) -> str:
        """The value of the ``Authorization`` header."""
        return f"Bearer {self.token}"


def apikey_create(
    *,
    name: str,
    scopes: Collection[str],
    expires_at: dt.datetime | None = None,
    rate_limit: int | None = None,
    actor: str = SYSTEM,
) -> IssuedKey:
    """Issue a key.

    Args:
        name: what it is for, for people.
        scopes: values of ``Scope``; at least one.
        expires_at: None for a key that never expires.
        rate_limit: requests a minute; 0 is unlimited, None the default.
        actor: who issues it.

    Raises:
        ApiKeyRefused: no name, no scope, an unknown one, or an expiry that is over.
    """
    _check(name, scopes, expires_at)

    def create() -> IssuedKey:
        issued = _issue(name=name.strip(), scopes=sorted(set(scopes)), expires_at=expires_at, rate_limit=rate_limit)
        detail = {"name": issued.key.name, "scopes": issued.key.scopes}
        audit_record(actor=actor, action="apikey.created", target=f"apikey:{issued.key.prefix}", detail=detail)
        return issued

    return run_in_transaction(create)


def apikey_rotate(*, prefix: str, grace: dt.timedelta = dt.timedelta(0), actor: str = SYSTEM) -> IssuedKey:
    """Issue a successor with the same name, scopes, limit and lifetime; the old key ends after ``grace``.

    Raises:
        ApiKeyUnknown: no such key.
        ApiKeyRefused: it is expired or revoked, or has a successor already.
    """

    def rotate() -> IssuedKey:
        now = timezone.now()
        old = _locked(prefix)
        if not old.is_usable(now):
            raise ApiKeyRefused("The API key is expired or revoked; create a new one.")
        # The row lock makes this check hold until the insert; the unique constraint stands behind it.
        if ApiKey.objects.filter(rotated_from=old).exists():
            raise ApiKeyRefused("The API key was rotated already; rotate its successor.")
        lifetime = None if old.expires_at is None else now + (old.expires_at - old.created_at)
        issued = _issue(
            name=old.name, scopes=old.scopes, expires_at=lifetime, rate_limit=old.rate_limit, rotated_from=old
        )
        old.expire_at(now + grace)
        detail = {"successor": issued.key.prefix, "grace_seconds": int(grace.total_seconds())}
        audit_record(actor=actor, action="apikey.rotated", target=f"apikey:{prefix}", detail=detail)
        return issued

    return run_in_transaction(rotate)


def apikey_revoke(*, prefix: str, actor: str = SYSTEM) -> ApiKey:
    """Close a key at once and for good; revoking it again changes nothing.

    Raises:
        ApiKeyUnknown: no such key.
    """

    def revoke() -> ApiKey:
        key = _locked(prefix)
        if key.revoked_at is None:
            key.revoke()
            audit_record(actor=actor, action="apikey.revoked", target=f"apikey:{prefix}", detail={"name": key.name})
        return key

    return run_in_transaction(revoke)


def _check(name: str, scopes: Collection[str], expires_at: dt.datetime | None) -> None:
    if not name.strip() or len(name.strip()) > 100:
        raise ApiKeyRefused("A name of 1 to 100 characters is needed.")
    if unknown := sorted(set(scopes) - set(Scope.values)):
        raise ApiKeyRefused(f"Unknown scopes: {', '.join(unknown)}. There are: {', '.join(Scope.values)}.")
    if not scopes:
        raise ApiKeyRefused("At least one scope is needed.")
    if expires_at is not None and expires_at <= timezone.now():
        raise ApiKeyRefused("The expiry is over already.")


def _locked(prefix: str) -> ApiKey:
    key = ApiKey.objects.select_for_update().filter(prefix=prefix).first()
    if key is None:
        raise ApiKeyUnknown(ApiKeyUnknown.__doc__)
    return key


def _issue(
    *,
    name: str,
    scopes: list[str],
    expires_at: dt.datetime | None,
    rate_limit: int | None,
    rotated_from: ApiKey | None = None,
) -> IssuedKey:
    prefix = "".join(secrets.choice(_PREFIX_LETTERS) for _ in range(12))
    # 43 of 62 letters: 256 bits.
    token = f"zk_{prefix}_" + "".join(secrets.choice(_SECRET_LETTERS) for _ in range(43))
    key = ApiKey.objects.create(
        name=name,
        prefix=prefix,
        digest=digest_of(token),
        scopes=scopes,
        expires_at=expires_at,
        rate_limit=rate_limit,
        rotated_from=rotated_from,
    )
    key.refresh_from_db(fields=["created_at"])
    return IssuedKey(key, token)
