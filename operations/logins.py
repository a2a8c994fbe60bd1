"""Logging in to the console: guesses are counted, successes audited."""

from __future__ import annotations

import hashlib
import ipaddress
from typing import Any, Final

import structlog
from django.contrib.admin.forms import AdminAuthenticationForm
from django.core.exceptions import ValidationError
from django.db import connection
from django.http import HttpRequest

from operations.audit import audit_record
from operations.client_address import client_address
from operations.conf import access_settings
from operations.models import LoginAttempts

NAMES_PER_ADDRESS: Final = 10
"""One address may try as many names at once as would spend this many windows of one name."""

# Serves login_attempt: counts before the password is looked at, so guesses that arrive together are all counted. The
# primary key makes the two branches one atomic step.
COUNT_SQL: Final = """
INSERT INTO operations_loginattempts AS counted (key, attempts, window_ends_at)
VALUES (%(key)s, 1, clock_timestamp() + make_interval(secs => %(window)s))
ON CONFLICT (key) DO UPDATE SET
    attempts = CASE WHEN counted.window_ends_at <= clock_timestamp() THEN 1 ELSE counted.attempts + 1 END,
    window_ends_at = CASE WHEN counted.window_ends_at <= clock_timestamp()
                          THEN excluded.window_ends_at ELSE counted.window_ends_at END
RETURNING attempts, ceil(extract(epoch FROM window_ends_at - clock_timestamp()))::int
"""
# Serves login_attempt: windows that are over, a few at a time; by their index, for which the moment is read once.
SWEEP_SQL: Final = """
DELETE FROM operations_loginattempts WHERE key IN
    (SELECT key FROM operations_loginattempts WHERE window_ends_at < (SELECT clock_timestamp()) LIMIT 100
        FOR UPDATE SKIP LOCKED)
"""

log = structlog.get_logger(__name__)


class ConsoleLoginForm(AdminAuthenticationForm):
    """The console's login form, which stops guessing by address and name."""

    retry_after = 0

    def clean(self) -> dict[str, Any]:
        address, name = _address(self.request), self.cleaned_data.get("username") or ""
        self.retry_after = login_attempt(address=address, name=name)
        if self.retry_after:
            log.warning("login_blocked", address=address)
            minutes = -(-self.retry_after // 60)
            raise ValidationError(f"Too many attempts. Try again in {minutes} minutes.", code="throttled")
        cleaned: dict[str, Any] = super().clean()
        login_attempts_forget(address=address, name=name)
        return cleaned


def login_attempt(*, address: str, name: str) -> int:
    """Count one attempt.

    Returns:
        Seconds to wait before the next one is looked at; 0 when this one may be.
    """
    config = access_settings()
    limits = {
        _key(address, name): config.login_attempts,
        _key(address, None): config.login_attempts * NAMES_PER_ADDRESS,
    }
    waits = []
    with connection.cursor() as cursor:
        for key, limit in limits.items():
            cursor.execute(COUNT_SQL, {"key": key, "window": config.login_window})
            attempts, seconds = cursor.fetchone()
            waits.append(max(1, seconds) if attempts > limit else 0)
            if attempts == 1:
                cursor.execute(SWEEP_SQL)
    return max(waits)


def login_attempts_forget(*, address: str, name: str) -> None:
    """Start counting anew for this name after a success; the address keeps its count."""
    LoginAttempts.objects.filter(key=_key(address, name)).delete()


def record_login(sender: Any, request: HttpRequest, user: Any, **_: Any) -> None:
    """Receiver of ``user_logged_in``."""
    audit_record(actor=f"user:{user.get_username()}", action="session.opened", detail={"from": _address(request)})


def record_logout(sender: Any, request: HttpRequest, user: Any, **_: Any) -> None:
    """Receiver of ``user_logged_out``; the session may have ended long before."""
    if user is not None:
        audit_record(actor=f"user:{user.get_username()}", action="session.closed", detail={"from": _address(request)})


def record_failure(sender: Any, request: HttpRequest | None = None, **_: Any) -> None:
    """Receiver of ``user_login_failed``. The name is not logged: people type passwords into that field."""
    log.warning("login_failed", address=_address(request))


def _address(request: HttpRequest | None) -> str:
    return "" if request is None else client_address(request)


def _key(address: str, name: str | None) -> str:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        network = address
    else:
        # Whoever has one IPv6 address has the whole /64.
        network = str(ipaddress.ip_network((parsed, 64), strict=False)) if parsed.version == 6 else address
    parts = ["address", network] if name is None else ["name", network, name.casefold()]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
