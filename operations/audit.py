"""Writing the audit trail."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import structlog
from django.http import HttpRequest
from rest_framework.request import Request

from operations.correlation import correlation_id
from operations.models import ApiKey, AuditEntry

SYSTEM: Final = "system"
# What people wrote, who may have named somebody: it can be erased from the trail, and from no log.
_WRITTEN: Final = frozenset({"reason", "note"})

log = structlog.get_logger(__name__)


def audit_record(*, actor: str, action: str, target: str = "", detail: Mapping[str, Any] | None = None) -> None:
    """Add one entry to the audit trail, in the transaction under way: it stands if and only if the action does.

    Args:
        actor: who, as ``actor_of`` names them.
        action: what, as ``apikey.revoked``: noun, dot, past participle.
        target: on what, as ``customer:0190…``.
        detail: JSON that says more; never a secret, never a person's data that must be erasable but in what people
            wrote as ``reason`` or ``note``, which is kept out of the log.
    """
    entry = {"actor": actor[:200], "action": action, "target": target[:200]}
    said = dict(detail or {})
    AuditEntry.objects.create(**entry, detail=said, correlation_id=correlation_id())
    log.info("audit", **entry, detail={name: value for name, value in said.items() if name not in _WRITTEN})


def actor_of(request: HttpRequest | Request) -> str:
    """Who sent the request: ``key:<prefix>``, ``user:<username>``, or ``anonymous``."""
    key = getattr(request, "auth", None)
    if isinstance(key, ApiKey):
        return f"key:{key.prefix}"
    user = getattr(request, "user", None)
    if user is not None and user.is_authenticated:
        return f"user:{user.get_username()}"
    return "anonymous"
