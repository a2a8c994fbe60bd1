"""Settings of the synchronisation, with their defaults; each is a Django setting or an environment variable.

``SYNC_FIELD_OWNER`` says who wins when both sides changed the same field differently before they could agree: a
mapping of a field (``email``, ``metadata.plan``), a root (``metadata``) or ``*`` to ``local``, ``remote`` or
``person``; the most exact entry counts. The default is ``{"*": "person"}``: neither side is right by rule, so every
such collision is shown to a person and both values stay where they are until one side is edited to agree.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from customers.sync.fields import root_of
from customers.sync.merge import Owner
from dbresilience.typed_settings import number, setting, whole

_OWNERS = ("local", "remote", "person")


@dataclass(frozen=True, slots=True)
class SyncSettings:
    """How syncs are run.

    Attributes:
        concurrency: syncs at once in one process (``SYNC_CONCURRENCY``).
        live_looks: how many requests of one process may ask the other side at once (``SYNC_LIVE_LOOKS``).
        lease: seconds for which a row is taken (``SYNC_LEASE``).
        retry_base_delay: seconds; the first wait is at most twice this (``SYNC_RETRY_BASE_DELAY``).
        retry_max_delay: seconds; no wait is longer (``SYNC_RETRY_MAX_DELAY``).
        field_owner: see the module (``SYNC_FIELD_OWNER``).
        route: how news of changes comes, straight from the ``log`` or through ``kafka`` (``SYNC_ROUTE``).
    """

    concurrency: int
    live_looks: int
    lease: float
    retry_base_delay: float
    retry_max_delay: float
    field_owner: Mapping[str, Owner]
    route: str

    def owner_of(self, field: str) -> Owner:
        """Who wins a collision on ``field``."""
        for name in (field, root_of(field), "*"):
            if name in self.field_owner:
                return self.field_owner[name]
        return "person"


def sync_settings() -> SyncSettings:
    """The settings in force.

    Raises:
        ImproperlyConfigured: a value is malformed or out of range; the message names the setting.
    """
    return SyncSettings(
        concurrency=whole("SYNC_CONCURRENCY", 8, 1, 64),
        live_looks=whole("SYNC_LIVE_LOOKS", 4, 1, 1000),
        lease=number("SYNC_LEASE", 60.0, 20.0, 3600.0),
        retry_base_delay=number("SYNC_RETRY_BASE_DELAY", 1.0, 0.0, 60.0),
        retry_max_delay=number("SYNC_RETRY_MAX_DELAY", 300.0, 0.0, 86_400.0),
        field_owner=_field_owner(setting("SYNC_FIELD_OWNER", {})),
        route=_route(str(setting("SYNC_ROUTE", "log"))),
    )


def _route(given: str) -> str:
    if given not in ("log", "kafka"):
        raise ImproperlyConfigured("SYNC_ROUTE must be log or kafka.")
    if given == "kafka" and not settings.KAFKA_BOOTSTRAP_SERVERS:
        raise ImproperlyConfigured("SYNC_ROUTE=kafka needs KAFKA_BOOTSTRAP_SERVERS.")
    return given


def _field_owner(raw: object) -> Mapping[str, Owner]:
    if isinstance(raw, str):
        try:
            raw = json.loads(raw)
        except ValueError as exc:
            raise ImproperlyConfigured("SYNC_FIELD_OWNER must be a JSON object.") from exc
    if not isinstance(raw, Mapping) or any(owner not in _OWNERS for owner in raw.values()):
        raise ImproperlyConfigured(f"SYNC_FIELD_OWNER must map fields to one of {', '.join(_OWNERS)}.")
    return cast(Mapping[str, Owner], raw)
