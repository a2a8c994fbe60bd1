"""All addresses of the product, and what they are measured against.

``/bare/customers/`` is Django REST framework's plainest create of the same table, ``/bare/webhooks`` the plainest view
that verifies and stores the same message, and ``/cached/customers/<id>`` the product's view with Redis in the place of
PostgreSQL, without any proof that what it gives is fresh: the most that a cache of customers could spare.
"""

from __future__ import annotations

import json

import orjson
import stripe
from django.conf import settings
from django.http import HttpRequest, JsonResponse
from django.urls import path
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.csrf import csrf_exempt
from rest_framework.generics import CreateAPIView
from rest_framework.parsers import JSONParser
from rest_framework.permissions import AllowAny
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import ModelSerializer

from customers.api.views import CustomerDetailView
from customers.models import Customer, Webhook
from operations.redis_connection import patient_redis
from zenskar.urls import handler400, handler403, handler404, handler500
from zenskar.urls import urlpatterns as product


class BareCustomer(ModelSerializer[Customer]):
    class Meta:
        model = Customer
        fields = ("id", "name", "email", "phone", "address", "metadata", "version", "created_at", "updated_at")
        read_only_fields = ("id", "version", "created_at", "updated_at")


class BareCreate(CreateAPIView[Customer]):
    """No event, no authentication, no throttle: one INSERT."""

    serializer_class = BareCustomer
    authentication_classes = ()
    permission_classes = (AllowAny,)
    throttle_classes = ()
    parser_classes = (JSONParser,)
    renderer_classes = (JSONRenderer,)


@method_decorator(csrf_exempt, name="dispatch")
class BareWebhook(View):
    """Stripe's own check of the signature, one INSERT through the ORM, an answer."""

    def post(self, request: HttpRequest) -> JsonResponse:
        header = request.headers["Stripe-Signature"]
        event = stripe.Webhook.construct_event(request.body, header, settings.STRIPE_WEBHOOK_SECRETS[0])
        Webhook.objects.create(
            integration="bare",
            event_id=event.id,
            type=event.type,
            livemode=event.livemode,
            remote_id=event.data.object["id"],
            payload=json.loads(request.body),
        )
        return JsonResponse({"received": True})


class CachedDetail(CustomerDetailView):
    """A GET that finds its answer in Redis, once it was there."""

    def get(self, request: Request, customer_id: str) -> Response:
        kept = patient_redis().attempt(lambda client: client.get(f"bench:{customer_id}"), otherwise=None)
        if kept is not None:
            return Response(orjson.loads(kept))
        answer = super().get(request, customer_id)
        patient_redis().attempt(
            lambda client: client.set(f"bench:{customer_id}", orjson.dumps(answer.data)), otherwise=None
        )
        return answer


urlpatterns = [
    path("bare/customers/", BareCreate.as_view()),
    path("bare/webhooks", BareWebhook.as_view()),
    path("cached/customers/<str:customer_id>", CachedDetail.as_view()),
    *product,
]

__all__ = ["handler400", "handler403", "handler404", "handler500", "urlpatterns"]
