"""Who calls the API: a program with an API key, or a member of staff with a session."""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass
from typing import Final

from django.contrib.auth.models import AbstractBaseUser
from django.utils import timezone
from rest_framework.authentication import BaseAuthentication, SessionAuthentication
from rest_framework.exceptions import PermissionDenied
from rest_framework.request import Request

from operations.errors import CredentialsRefused, CsrfFailed
from operations.models import ApiKey

REALM: Final = 'Bearer realm="zenskar"'
_TOKEN: Final = re.compile(r"zk_([a-z0-9]{12})_([A-Za-z0-9]{43})\Z")
_NOBODY: Final = hashlib.sha256(b"no such key").hexdigest()


@dataclass(frozen=True, slots=True)
class KeyHolder:
    """The program behind an API key, in the place where Django expects a user."""

    key: ApiKey
    is_authenticated: bool = True
    is_anonymous: bool = False
    is_active: bool = True
    is_staff: bool = False
    pk: None = None

    def get_username(self) -> str:
        return f"key:{self.key.prefix}"


def digest_of(token: str) -> str:
    """What is stored of a key. Plain SHA-256 is enough: 256 random bits cannot be guessed, slowly or quickly."""
    return hashlib.sha256(token.encode()).hexdigest()


def key_of_token(token: str) -> ApiKey:
    """The usable key that ``token`` opens.

    An unknown prefix, a wrong secret, an expired and a revoked key all answer alike and compare a digest once, in
    constant time, so that neither the answer nor its duration tells them apart.

    Raises:
        CredentialsRefused: no usable key.
    """
    match = _TOKEN.match(token)
    key = ApiKey.objects.by_prefix(match[1]) if match else None
    genuine = hmac.compare_digest(digest_of(token), key.digest if key else _NOBODY)
    now = timezone.now()
    if key is None or not genuine or not key.is_usable(now):
        raise CredentialsRefused(headers={"WWW-Authenticate": f'{REALM}, error="invalid_token"'})
    if key.use_is_stale(now):
        ApiKey.objects.record_use(key.pk)
    return key


class ApiKeyAuthentication(BaseAuthentication):
    """``Authorization: Bearer zk_<prefix>_<secret>``."""

    def authenticate(self, request: Request) -> tuple[KeyHolder, ApiKey] | None:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if not scheme:
            return None
        if scheme.lower() != "bearer":
            raise CredentialsRefused("Only Bearer credentials are taken.", headers={"WWW-Authenticate": REALM})
        key = key_of_token(token.strip())
        return KeyHolder(key), key

    def authenticate_header(self, request: Request) -> str:
        return REALM


class StaffSessionAuthentication(SessionAuthentication):
    """The console's session, for staff alone; whoever is logged in without being staff counts as nobody."""

    def authenticate(self, request: Request) -> tuple[AbstractBaseUser, None] | None:
        user = getattr(request._request, "user", None)
        if user is None or not (user.is_active and user.is_staff):
            return None
        self.enforce_csrf(request)
        return user, None

    def enforce_csrf(self, request: Request) -> None:
        try:
            super().enforce_csrf(request)
        except PermissionDenied as exc:
            raise CsrfFailed from exc
