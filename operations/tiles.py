"""This app's tiles on the console's first page."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

from django.db.models import Q
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone

from operations.models import ApiKey
from operations.overview import Figure

SOON = dt.timedelta(days=30)
COUNTED_AT_MOST = 1000


def access(request: HttpRequest) -> Sequence[Figure]:
    """API keys by what they open; each count is served by an index, or stops soon."""
    now = timezone.now()
    usable = Q(revoked_at=None) & (Q(expires_at=None) | Q(expires_at__gt=now))
    ending = usable & Q(expires_at__lte=now + SOON)
    active, ends = (ApiKey.objects.filter(query)[: COUNTED_AT_MOST + 1].count() for query in (usable, ending))
    # Of the newest ones: an index of those that were never used would have to be written with every use.
    newest = ApiKey.objects.order_by("-pk").values("pk")[: COUNTED_AT_MOST + 1]
    unused = ApiKey.objects.filter(usable, pk__in=newest, last_used_at=None).count()
    url = reverse("admin:operations_apikey_changelist")
    return [
        Figure(label="active", value=_bounded(active), url=f"{url}?state=active"),
        Figure(label="end within 30 days", value=_bounded(ends), tone="warn" if ends else "plain"),
        Figure(label="never used", value=_bounded(unused)),
    ]


def _bounded(count: int) -> int | str:
    return count if count <= COUNTED_AT_MOST else f"over {COUNTED_AT_MOST:,}"
