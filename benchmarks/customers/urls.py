"""All addresses of the product, and ``/bare/customers/``: Django REST framework's plainest create of the same table."""

from __future__ import annotations

from django.urls import path
from rest_framework.generics import CreateAPIView
from rest_framework.parsers import JSONParser
from rest_framework.permissions import AllowAny
from rest_framework.renderers import JSONRenderer
from rest_framework.serializers import ModelSerializer

from customers.models import Customer
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


urlpatterns = [path("bare/customers/", BareCreate.as_view()), *product]

__all__ = ["handler400", "handler403", "handler404", "handler500", "urlpatterns"]
