"""Base of views that begin a long action: what is small is done before the answer, all else goes on after it."""

from __future__ import annotations

from typing import Any, ClassVar, Final

import orjson
from django.http import HttpResponse
from rest_framework import status
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from operations.audit import actor_of
from operations.idempotency.decorators import REPLAYED, idempotent
from operations.long_actions.beginning import operation_begin
from operations.long_actions.documents import operation_document
from operations.long_actions.kinds import Kind
from operations.long_actions.runner import operation_run
from operations.models import Operation, OperationState
from operations.permissions import require
from operations.scopes import Scope

ADDRESS: Final = "/api/v1/admin/operations/{}/"


class BeginningView(APIView):
    """``POST`` plans and starts an operation, works on it for a moment if it is small, and answers.

    200 with the whole result when it is over by then, else 202 with the operation and its address. With an
    Idempotency-Key a repeat begins nothing and tells how that same operation stands now.

    Attributes:
        kind: of the operation.
        seconds: for which a small operation is worked on before the answer.
        small: eligible items up to which it is small.
    """

    required_scopes = {"read": Scope.OPERATIONS_READ, "write": Scope.OPERATIONS_WRITE}
    kind: ClassVar[Kind]
    seconds: ClassVar[float] = 5.0
    small: ClassVar[int] = 2_000

    def filter_of(self, request: Request) -> dict[str, Any]:
        """The filter of the operation; raises what is wrong with the request."""
        raise NotImplementedError

    def reason_of(self, request: Request) -> str:
        """Why it is done, for the audit trail."""
        return f"{request.method} {request.path}"[:500]

    def begun(self, filter: dict[str, Any]) -> Operation | None:
        """An operation that is under way already and does the same; None if a new one is to begin."""
        return None

    def post(self, request: Request) -> Any:
        answer = self._begin(request)
        if answer.status_code != status.HTTP_202_ACCEPTED:
            return answer
        said = answer.data if isinstance(answer, Response) else orjson.loads(answer.content)
        operation = Operation.objects.get(pk=said["id"])
        if operation.eligible <= self.small and operation.state == OperationState.RUNNING:
            operation = operation_run(operation.pk, seconds=self.seconds)
        return operation_answer(request, operation, replayed=answer.headers.get(REPLAYED, ""))

    @idempotent()
    def _begin(self, request: Request) -> Response | HttpResponse:
        require(request, self.kind.permission)
        filter = self.filter_of(request)
        operation = operation_begin(
            kind=self.kind.name,
            filter=filter,
            reason=self.reason_of(request),
            actor=actor_of(request),
            under_way=lambda: self.begun(filter),
        )
        return Response({"id": operation.pk}, status=status.HTTP_202_ACCEPTED)

    post.is_idempotent = True  # type: ignore[attr-defined]


def operation_answer(request: Request, operation: Operation, *, replayed: str = "") -> Response:
    """The answer that tells of an operation: 200 when it is over, else 202."""
    place = request.build_absolute_uri(ADDRESS.format(operation.pk))
    headers = {"Location": place, "Cache-Control": "no-store"}
    if replayed:
        headers[REPLAYED] = replayed
    over = operation.is_final and not operation.in_flight
    if not over:
        headers["Retry-After"] = "2"
    body = {"result": {}, **operation_document(operation), "url": place}
    return Response(body, status=status.HTTP_200_OK if over else status.HTTP_202_ACCEPTED, headers=headers)
