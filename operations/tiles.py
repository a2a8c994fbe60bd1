"""This app's tiles on the console's first page."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

from django.db.models import Count, Q
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone

from operations.models import ApiKey
from operations.overview import Figure

SOON = dt.timedelta(days=30)


def access(request: HttpRequest) -> Sequence[Figure]:
    """API keys by what they open; the table is small."""
    now = timezone.now()
    usable = Q(revoked_at=None) & (Q(expires_at=None) | Q(expires_at__gt=now))
    ending = usable & Q(expires_at__lte=now + SOON)
    counts = ApiKey.objects.aggregate(
        active=Count("pk", filter=usable),
        ending=Count("pk", filter=ending),
        unused=Count("pk", filter=usable & Q(last_used_at=None)),
    )
    url = reverse("admin:operations_apikey_changelist")
    return [
        Figure(label="active", value=counts["active"], url=f"{url}?state=active"),
        Figure(label="end within 30 days", value=counts["ending"], tone="warn" if counts["ending"] else "plain"),
        Figure(label="never used", value=counts["unused"]),
    ]
