"""The database's tile on the console's first page: the newest sample, one row by its index."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Final

from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone

from dbresilience.models import Sample
from operations.overview import Figure

STALE: Final = dt.timedelta(minutes=5)


def database(request: HttpRequest) -> Sequence[Figure]:
    """What the monitor measured last."""
    url = reverse("console-database")
    newest = Sample.objects.order_by("-minute").first()
    if newest is None:
        return [Figure(label="samples", value="none yet", url=url)]
    if timezone.now() - newest.minute > STALE:
        return [Figure(label="last sample", value=f"{newest.minute:%d %b %H:%M}", tone="warn", url=url)]
    hour, pools = newest.figures["last_hour"] or {}, newest.figures["pools"]
    server, blocked = newest.figures["server"] or {}, newest.figures["blocked_sessions"]
    figures = [
        Figure(
            label="connections",
            value=f"{server.get('client_connections', '?')} of {server.get('max_connections', '?')}",
            url=url,
        ),
        Figure(
            label="errors, last hour", value=hour.get("errors", "?"), tone="warn" if hour.get("errors") else "plain"
        ),
        Figure(
            label="sessions blocked", value="?" if blocked is None else blocked, tone="warn" if blocked else "plain"
        ),
    ]
    if pools is not None:
        figures.insert(1, Figure(label="pool in use", value=f"{pools['total']['utilisation_percent']} %"))
    return figures
