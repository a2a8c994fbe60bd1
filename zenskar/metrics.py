"""``/metrics``: what Prometheus reads, with a token."""

from __future__ import annotations

import hmac

from django.conf import settings
from django.http import HttpResponse
from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request
from rest_framework.views import APIView

from operations.authentication import ApiKeyAuthentication, KeyHolder, StaffSessionAuthentication
from operations.metrics import metrics_page
from operations.models import ApiKey
from operations.negotiation import AnyFormat
from operations.scopes import Scope


class MetricsTokenAuthentication(BaseAuthentication):
    """``Authorization: Bearer <METRICS_TOKEN>``: needs no database, so that an outage of it can be measured."""

    def authenticate(self, request: Request) -> tuple[KeyHolder, ApiKey] | None:
        expected: str = settings.METRICS_TOKEN
        given = request.headers.get("Authorization", "").removeprefix("Bearer ").strip()
        if not expected or not hmac.compare_digest(given.encode(), expected.encode()):
            return None
        key = ApiKey(name="metrics", prefix="metrics", scopes=[Scope.METRICS_READ.value])
        return KeyHolder(key), key


class MetricsView(APIView):
    """All metrics, for Prometheus."""

    authentication_classes = (MetricsTokenAuthentication, ApiKeyAuthentication, StaffSessionAuthentication)
    content_negotiation_class = AnyFormat
    throttle_classes = ()
    required_scopes = {"read": Scope.METRICS_READ.value}
    schema = None

    def get_authenticate_header(self, request: Request) -> str:
        return ApiKeyAuthentication().authenticate_header(request)

    def get(self, request: Request) -> HttpResponse:
        page, content_type = metrics_page()
        return HttpResponse(page, content_type=content_type)
