"""The life of a thing over HTTP."""

from __future__ import annotations

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from operations.api import life_descriptions as descriptions
from operations.life.documents import life_document
from operations.life.finding import LONGEST, life_find
from operations.scopes import Scope
from operations.serializers import StrictSerializer, query_values


class LifeQuery(StrictSerializer):
    """Query parameters."""

    q = serializers.CharField(max_length=LONGEST)


@descriptions.life
class LifeView(APIView):
    """Everything that happened to one thing, from every app, in the order of time."""

    required_scopes = {"read": Scope.OPERATIONS_READ}

    def get(self, request: Request) -> Response:
        query = LifeQuery(data=query_values(request))
        query.is_valid(raise_exception=True)
        return Response(
            life_document(life_find(request, query.validated_data["q"])), headers={"Cache-Control": "no-store"}
        )
