"""Settings of the notifier; each is a Django setting or an environment variable of the same name."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from dbresilience.typed_settings import number, setting

CHANNELS: Final = ("log", "email", "webhook")


@dataclass(frozen=True, slots=True)
class AlertSettings:
    """Who is told, how, and how often.

    Attributes:
        channels: of log, email, webhook (``ALERT_CHANNELS``, by comma; log).
        emails: who gets e-mails (``ALERT_EMAILS``, by comma).
        email_from: their sender (``ALERT_EMAIL_FROM``; Django's ``DEFAULT_FROM_EMAIL``).
        webhook_url: where webhooks go (``ALERT_WEBHOOK_URL``).
        webhook_secret: what they are signed with, by Standard Webhooks: whsec_ and base64 (``ALERT_WEBHOOK_SECRET``).
        quiet_seconds: how long an alert that stays is not told of again (``ALERT_QUIET_SECONDS``, 3600).
        timeout: seconds that one e-mail or webhook may take (``ALERT_TIMEOUT``, 10).
    """

    channels: tuple[str, ...]
    emails: tuple[str, ...]
    email_from: str
    webhook_url: str
    webhook_secret: bytes
    quiet_seconds: float
    timeout: float


def alert_settings() -> AlertSettings:
    """The settings in force.

    Raises:
        ImproperlyConfigured: a value makes no sense; the message names the setting and shows no secret.
    """
    found = AlertSettings(
        channels=_list("ALERT_CHANNELS", "log"),
        emails=_list("ALERT_EMAILS", ""),
        email_from=str(setting("ALERT_EMAIL_FROM", settings.DEFAULT_FROM_EMAIL)),
        webhook_url=str(setting("ALERT_WEBHOOK_URL", "")),
        webhook_secret=_secret(str(setting("ALERT_WEBHOOK_SECRET", ""))),
        quiet_seconds=number("ALERT_QUIET_SECONDS", 3600.0, 0.0, 31_536_000.0),
        timeout=number("ALERT_TIMEOUT", 10.0, 0.1, 600.0),
    )
    for channel in found.channels:
        if channel not in CHANNELS:
            raise ImproperlyConfigured(f"ALERT_CHANNELS: {channel!r} is none of {', '.join(CHANNELS)}.")
    if "email" in found.channels and not found.emails:
        raise ImproperlyConfigured("ALERT_CHANNELS has email, but ALERT_EMAILS is empty.")
    if "webhook" in found.channels:
        if urlsplit(found.webhook_url).scheme not in ("http", "https") or not urlsplit(found.webhook_url).hostname:
            raise ImproperlyConfigured("ALERT_CHANNELS has webhook, but ALERT_WEBHOOK_URL is no http or https address.")
        if not found.webhook_secret:
            raise ImproperlyConfigured("ALERT_CHANNELS has webhook, but ALERT_WEBHOOK_SECRET is empty.")
    return found


def _list(name: str, default: str) -> tuple[str, ...]:
    raw = setting(name, default)
    parts = raw.split(",") if isinstance(raw, str) else [str(part) for part in raw]
    return tuple(part.strip() for part in parts if part.strip())


def _secret(text: str) -> bytes:
    try:
        return base64.b64decode(text.removeprefix("whsec_"), validate=True)
    except (binascii.Error, ValueError) as exc:
        raise ImproperlyConfigured("ALERT_WEBHOOK_SECRET must be whsec_ and base64.") from exc
