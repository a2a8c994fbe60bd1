"""Decorators that make views and functions idempotent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import wraps
from typing import Any, Final, TypeVar

import orjson
from django.db import Error, connection
from django.http import HttpResponse
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from dbresilience.errors import CommitUnknown, LockHeld
from dbresilience.transactions import run_in_transaction
from operations.audit import actor_of
from operations.idempotency.answers import Answered, answer_find, answer_keep, lock_of
from operations.idempotency.errors import AnswerErased, KeyInFlight, KeyReused
from operations.idempotency.keys import Answer, HeldKey, Scope, key_begin
from operations.idempotency.requests import HEADER, canonical_route, fingerprint_of, key_of_header
from operations.json_bodies import JsonRenderer

F = TypeVar("F", bound=Callable[..., Any])

REPLAYED: Final = "Idempotent-Replayed"
CONDITIONS: Final = ("If-Match", "If-None-Match")

KEPT: Final = frozenset({404, 409, 410, 412})
"""Problems that the same request would meet again; others are forgotten, so that it can be mended and repeated."""


def idempotent(
    *,
    subject: Callable[[Any], str] = lambda data: "",
    savepoints: bool = True,
    outside_for: float | None = None,
    unless: Callable[[Request], bool] = lambda request: False,
) -> Callable[[F], F]:
    """Makes a method of an API view honour ``Idempotency-Key``; without the header nothing changes.

    The whole method runs in one transaction together with the record of its answer, and may run again like any such
    transaction: it must do nothing but database work.

    Args:
        subject: from the body of the answer, whom it speaks of, so that it can be erased.
        savepoints: as in ``run_in_transaction``; False for a method whose own transactions end it when they fail.
        outside_for: seconds that the method may take outside of any transaction, for one that calls out or takes long.
            Its answer is kept when it has returned; after a crash in between, or when it takes longer, a repeat does it
            again. So it must be harmless when it is done twice.
        unless: requests that the method carries out with the key on its own.
    """

    def decorate(method: F) -> F:
        @wraps(method)
        def handler(view: APIView, request: Request, *args: Any, **kwargs: Any) -> Any:
            if HEADER not in request.headers or unless(request):
                return method(view, request, *args, **kwargs)

            def work() -> Any:
                return method(view, request, *args, **kwargs)

            if outside_for is not None:
                return _carry_out_outside(view, request, work, subject, lease=outside_for)
            return _carry_out(view, request, work, subject, savepoints=savepoints)

        handler.is_idempotent = True  # type: ignore[attr-defined]
        return handler  # type: ignore[return-value]

    return decorate


def idempotent_function(name: str) -> Callable[[F], F]:
    """Makes a function with keyword arguments honour ``idempotency_key`` and ``actor``; without a key nothing changes.

    Arguments and result must be what orjson can write; a repeated call gets the result as JSON gives it back. The
    function and the record of its result are one transaction. What it raises is not kept.

    Args:
        name: in the place of an address; unique.

    Raises (when called):
        AnswerErased: it was called, and the result was erased.
        KeyReused: the key was used with other arguments.
        KeyInFlight: the same call is under way.
    """

    def decorate(function: F) -> F:
        @wraps(function)
        def call(*, idempotency_key: str | None = None, actor: str = "system", **arguments: Any) -> Any:
            if idempotency_key is None:
                return function(**arguments)
            key = key_of_header(idempotency_key)
            said = orjson.loads(orjson.dumps(arguments, option=orjson.OPT_NON_STR_KEYS))
            scope = Scope(actor=actor, key=key, method="CALL", route=name)
            fingerprint = fingerprint_of("CALL", name, [], said)

            def work() -> Answer:
                return Answer(status=200, body=orjson.dumps(function(**arguments)))

            answer, _ = _answered(scope, fingerprint, work)
            return orjson.loads(answer.body)

        return call  # type: ignore[return-value]

    return decorate


def request_begin(
    request: Request, *, said: Sequence[tuple[str, list[str]]] = (), lease: float | None = None
) -> HeldKey | Answer | None:
    """Begin a request with its key; None if it has none.

    Args:
        said: what else a repeat must say alike, as name and values.
        lease: as in ``key_begin``.

    Raises:
        KeyMalformed, KeyReused, KeyInFlight, AnswerErased: see ``operations.idempotency.keys``.
    """
    if HEADER not in request.headers:
        return None
    return key_begin(*_said(request, said), lease=lease)


def problem_settle(view: APIView, held: HeldKey, exc: Exception) -> HttpResponse | None:
    """End a key whose work failed and left nothing.

    Returns:
        The problem, kept, when the same request would meet it again. None when it is of another kind: the key is
        forgotten, and the error is to be raised.
    """
    try:
        problem = _problem(view, exc)
    except BaseException:
        _release(held)
        raise
    if problem is None:
        _release(held)
        return None
    held.complete(problem)
    return answer_response(problem)


def _carry_out(
    view: APIView, request: Request, method: Callable[[], Any], subject: Callable[[Any], str], *, savepoints: bool
) -> HttpResponse:
    scope, fingerprint = _said(request)
    try:
        answer, is_replayed = _answered(scope, fingerprint, lambda: _answer(method(), subject), savepoints=savepoints)
        return answer_response(answer, replayed=is_replayed)
    except (AnswerErased, CommitUnknown, KeyInFlight, KeyReused):
        # Whoever repeats it finds the answer, or that there is none.
        raise
    except Exception as exc:
        if (problem := _problem(view, exc)) is None:
            raise
        # Answered by another request meanwhile, that one's answer stays; this one had no effect.
        with suppress(Answered):
            answer_keep(scope, fingerprint, problem)
        return answer_response(problem)


def _answered(
    scope: Scope, fingerprint: str, work: Callable[[], Answer], *, savepoints: bool = True
) -> tuple[Answer, bool]:
    """The answer to a request, and whether it had it before; else ``work`` and its answer are one transaction."""

    def kept() -> Answer:
        answer = work()
        answer_keep(scope, fingerprint, answer)
        return answer

    # Inside another transaction the unique key alone keeps two apart, which wait for each other.
    lock = None if connection.in_atomic_block else lock_of(scope)
    while (found := answer_find(scope, fingerprint)) is None:
        try:
            return run_in_transaction(kept, lock=lock, savepoints=savepoints), False
        except LockHeld as exc:
            raise KeyInFlight(headers={"Retry-After": "1"}) from exc
        except Answered:
            # Its answer is there to be found, or has just expired.
            continue
        except CommitUnknown:
            raise
        except Exception:
            # Of two that did the work, the second meets what the first left: not an error of its own.
            with suppress(Error):
                found = answer_find(scope, fingerprint)
            if found is None:
                raise
    return found, True


def _carry_out_outside(
    view: APIView, request: Request, method: Callable[[], Any], subject: Callable[[Any], str], *, lease: float
) -> HttpResponse:
    held = key_begin(*_said(request), lease=lease)
    if isinstance(held, Answer):
        return answer_response(held, replayed=True)
    try:
        answer = _answer(method(), subject)
    except BaseException:
        _release(held)
        raise
    # Taken over meanwhile, it was done twice; this caller has the answer to what was done for it.
    with suppress(KeyInFlight):
        held.complete(answer)
    return answer_response(answer)


def _said(request: Request, more: Sequence[tuple[str, list[str]]] = ()) -> tuple[Scope, str]:
    """What the key of a request is valid for, and the fingerprint of what the request says."""
    key = key_of_header(request.headers[HEADER])
    method, route = str(request.method), canonical_route(request.path_info)
    scope = Scope(actor=actor_of(request), key=key, method=method, route=route[:500])
    # A condition is part of what is asked for.
    condition = [(name.lower(), [request.headers[name]]) for name in CONDITIONS if name in request.headers]
    return scope, fingerprint_of(method, route, [*request.query_params.lists(), *condition, *more], request.data)


def _problem(view: APIView, exc: Exception) -> Answer | None:
    """The problem that an error is, if the same request would meet it again.

    Raises:
        Exception: the error itself, when it is no problem.
    """
    problem = _answer(view.handle_exception(exc), lambda data: "")
    # A conflict that says when to come back is over by then.
    return problem if problem.status in KEPT and "Retry-After" not in problem.headers else None


def _release(held: HeldKey) -> None:
    # While the database is away the key stays in flight, and is taken over when its lease is over.
    with suppress(Error):
        held.release()


def _answer(response: Any, subject: Callable[[Any], str]) -> Answer:
    """What is sent, rendered now: an answer whose body cannot be made must not be found after the commit."""
    if not isinstance(response, Response):
        return Answer(status=response.status_code, headers=dict(response.headers), body=bytes(response.content))
    body = JsonRenderer().render(response.data)
    headers = dict(response.headers)
    if body:
        headers["Content-Type"] = response.content_type or JsonRenderer.media_type
    return Answer(status=response.status_code, headers=headers, body=body, subject=subject(response.data))


def answer_response(answer: Answer, *, replayed: bool = False) -> HttpResponse:
    """An answer as it is sent."""
    response = HttpResponse(answer.body, status=answer.status)
    del response.headers["Content-Type"]
    for name, value in answer.headers.items():
        response.headers[name] = value
    if replayed:
        response.headers[REPLAYED] = "true"
    return response
