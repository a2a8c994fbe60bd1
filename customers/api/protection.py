"""``X-Use-Integrity-Protection: true``: an answer when every integration has the change too, or when nobody has it."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from django.http import HttpResponse
from rest_framework.request import Request
from rest_framework.views import APIView

from customers.sagas.beginning import Wanted
from customers.sagas.errors import ProtectionMalformed
from customers.sagas.protected import Started
from dbresilience.errors import CommitUnknown
from operations.audit import actor_of
from operations.idempotency.decorators import answer_response, problem_settle, request_begin
from operations.idempotency.errors import KeyInFlight
from operations.idempotency.keys import Answer

HEADER: Final = "X-Use-Integrity-Protection"


def is_protected(request: Request) -> bool:
    """Whether protection is asked for.

    Raises:
        ProtectionMalformed: the header says neither true nor false.
    """
    said = request.headers.get(HEADER, "false").strip().lower()
    if said not in ("true", "false"):
        raise ProtectionMalformed
    return said == "true"


def protected_response(view: APIView, request: Request, wanted: Wanted) -> HttpResponse:
    """Carry a protected change out and answer, with its idempotency key if it has one.

    Raises:
        SagaUndecided: the time limit ended first; the key stays in flight until the change has ended.
        CustomerError, KeyMalformed, KeyReused, KeyInFlight: nothing was begun.
    """
    # A repeat without protection would be another request.
    held = request_begin(request, said=[(HEADER.lower(), ["true"])])
    if isinstance(held, Answer):
        return answer_response(held, replayed=True)
    address = request.build_absolute_uri(request.path.partition("customers")[0] + "customers")
    wanted = replace(wanted, held=held, actor=actor_of(request), address=address)
    if held is None:
        return answer_response(Started(wanted).answer())
    try:
        started = Started(wanted)
    except (KeyInFlight, CommitUnknown):
        raise
    except Exception as exc:
        if (kept := problem_settle(view, held, exc)) is None:
            raise
        return kept
    return answer_response(started.answer())
