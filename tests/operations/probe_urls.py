"""Addresses that show what the framework does with any view, whatever the view is about."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import Group
from django.db import OperationalError, connection, transaction
from django.http import HttpRequest, HttpResponse
from django.urls import path
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from operations.serializers import StrictSerializer
from zenskar import urls

handler400, handler403, handler404, handler500 = urls.handler400, urls.handler403, urls.handler404, urls.handler500


class AddressSerializer(StrictSerializer):
    city = serializers.CharField(max_length=10)


class ProbeSerializer(StrictSerializer):
    id = serializers.CharField(read_only=True)
    name = serializers.CharField(max_length=10)
    tags = serializers.ListField(child=serializers.CharField(max_length=3), required=False)
    address = AddressSerializer(required=False)


class ForgivingSerializer(ProbeSerializer):
    ignores_read_only = True


class ProbeView(APIView):
    required_scopes = {"read": "customers:read", "write": "customers:write"}
    taken: list[Any] = []

    def get(self, request: Request) -> Response:
        return Response({"user": request.user.get_username()})

    def post(self, request: Request) -> Response:
        serializer = ProbeSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        ProbeView.taken.append(serializer.validated_data)
        return Response(serializer.validated_data)


class ForgivingView(APIView):
    required_scopes = {"write": "customers:write"}

    def put(self, request: Request) -> Response:
        serializer = ForgivingSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        return Response(serializer.validated_data)


class UnscopedView(APIView):
    def get(self, request: Request) -> Response:
        return Response({})


class DuplicateView(APIView):
    required_scopes = {"read": "customers:read"}

    def get(self, request: Request) -> Response:
        with transaction.atomic():
            Group.objects.create(name="twice")
            Group.objects.create(name="twice")
        return Response({})


class UnstorableView(APIView):
    required_scopes = {"read": "customers:read"}

    def get(self, request: Request) -> Response:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 40000::int2")
        return Response({})


class DatabaseAwayView(APIView):
    authentication_classes = ()
    permission_classes = ()
    throttle_classes = ()

    def get(self, request: Request) -> Response:
        raise OperationalError("could not connect to server: host db-17.internal, user zenskar")


class CrashView(APIView):
    authentication_classes = ()
    permission_classes = ()
    throttle_classes = ()

    def get(self, request: Request) -> Response:
        raise RuntimeError("secret=hunter2")


def plain_away(request: HttpRequest) -> HttpResponse:
    raise OperationalError("could not connect to server: host db-17.internal")


urlpatterns = [
    path("api/probe", ProbeView.as_view()),
    path("api/forgiving", ForgivingView.as_view()),
    path("api/unscoped", UnscopedView.as_view()),
    path("api/duplicate", DuplicateView.as_view()),
    path("api/unstorable", UnstorableView.as_view()),
    path("api/away", DatabaseAwayView.as_view()),
    path("api/crash", CrashView.as_view()),
    path("plain-away", plain_away),
    *urls.urlpatterns,
]
