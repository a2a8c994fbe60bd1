"""What operators do, and who may do it, as rows."""

from __future__ import annotations

from operations.models.alert import Alert, AlertLevel, AlertNotice
from operations.models.api_key import ApiKey
from operations.models.audit import AuditEntry
from operations.models.idempotency import IdempotencyKey
from operations.models.lock import Lock
from operations.models.login_attempts import LoginAttempts
from operations.models.operation import ItemState, Operation, OperationItem, OperationState
from operations.models.trouble_note import TroubleNote

__all__ = [
    "Alert",
    "AlertLevel",
    "AlertNotice",
    "ApiKey",
    "AuditEntry",
    "IdempotencyKey",
    "ItemState",
    "Lock",
    "LoginAttempts",
    "Operation",
    "OperationItem",
    "OperationState",
    "TroubleNote",
]
