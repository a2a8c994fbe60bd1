"""The channels: log, e-mail, webhook."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import hmac
import http.client
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import orjson
import structlog
from django.core.mail import EmailMessage, get_connection

from operations.alerts.conf import AlertSettings

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Message:
    """What is told.

    Attributes:
        id: the same at every attempt, so that whoever gets it twice can tell.
        kind: raised, reminded or ended.
        The others are those of the alert.
    """

    id: str
    kind: str
    key: str
    source: str
    level: str
    title: str
    message: str
    raised_at: dt.datetime
    ended_at: dt.datetime | None


class WebhookRefused(Exception):
    """The other side did not answer 2xx."""


def send(channel: str, message: Message, config: AlertSettings) -> None:
    """Tell it.

    Raises:
        Exception: whatever the channel raises; it did not go.
    """
    _CHANNELS[channel](message, config)


def webhook_signature(secret: bytes, message_id: str, timestamp: str, body: bytes) -> str:
    """The signature of Standard Webhooks (standardwebhooks.com): version 1, HMAC-SHA256 over id, time and body."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()


def _log(message: Message, config: AlertSettings) -> None:
    write = log.info if message.kind == "ended" else log.error if message.level == "critical" else log.warning
    write("alert", kind=message.kind, key=message.key, level=message.level, title=message.title, text=message.message)


def _email(message: Message, config: AlertSettings) -> None:
    # A header has one line, whatever an alert's title has.
    subject = " ".join(f"[Zenskar] {_head(message)}: {message.title}".split())
    lines = [message.message, "", f"Since {message.raised_at:%Y-%m-%d %H:%M:%S} UTC. Key: {message.key}."]
    if message.ended_at is not None:
        lines.append(f"Ended at {message.ended_at:%Y-%m-%d %H:%M:%S} UTC.")
    EmailMessage(
        subject,
        "\n".join(lines),
        config.email_from,
        list(config.emails),
        headers={"Message-ID": f"<{message.id}@zenskar>"},
        connection=get_connection(timeout=config.timeout),
    ).send()


def _webhook(message: Message, config: AlertSettings) -> None:
    timestamp = str(int(time.time()))
    body = orjson.dumps(
        {
            "type": f"alert.{message.kind}",
            "timestamp": dt.datetime.now(dt.UTC),
            "data": {
                "key": message.key,
                "source": message.source,
                "level": message.level,
                "title": message.title,
                "message": message.message,
                "raised_at": message.raised_at,
                "ended_at": message.ended_at,
            },
        },
        option=orjson.OPT_UTC_Z,
    )
    request = urllib.request.Request(  # noqa: S310 - the scheme is checked with the settings
        config.webhook_url,
        data=body,
        headers={
            "Content-Type": "application/json",
            "User-Agent": "Zenskar",
            "webhook-id": message.id,
            "webhook-timestamp": timestamp,
            "webhook-signature": webhook_signature(config.webhook_secret, message.id, timestamp, body),
        },
        method="POST",
    )
    with _opener.open(request, timeout=config.timeout) as answer:
        if not 200 <= answer.status < 300:
            raise WebhookRefused(f"It answered {answer.status}.")


def _head(message: Message) -> str:
    return {"raised": message.level, "reminded": f"still {message.level}"}.get(message.kind, message.kind)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the message to an address that nobody configured."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


class _Quiet(urllib.request.HTTPErrorProcessor):
    """Leaves the status to the caller."""

    def http_response(self, request: urllib.request.Request, response: http.client.HTTPResponse) -> Any:
        return response

    https_response = http_response


_opener: Final = urllib.request.build_opener(_NoRedirects, _Quiet)
_CHANNELS: Final[dict[str, Callable[[Message, AlertSettings], None]]] = {
    "log": _log,
    "email": _email,
    "webhook": _webhook,
}
