"""What operators do, and who may do it, as rows."""

from __future__ import annotations

from operations.models.api_key import ApiKey
from operations.models.audit import AuditEntry
from operations.models.login_attempts import LoginAttempts

__all__ = ["ApiKey", "AuditEntry", "LoginAttempts"]
