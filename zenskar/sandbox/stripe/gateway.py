"""The way of one request through the sandbox: key, limit, fault, idempotency, execution, answer."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import orjson

from zenskar.sandbox.stripe.accounts import account_invalid
from zenskar.sandbox.stripe.calls import Call, LoggedRequest, Response
from zenskar.sandbox.stripe.errors import (
    StripeError,
    lock_timeout,
    rate_limited,
    server_error,
    unrecognized_url,
)
from zenskar.sandbox.stripe.expanding import expandable, expanded
from zenskar.sandbox.stripe.faults import Fault
from zenskar.sandbox.stripe.fields import parse
from zenskar.sandbox.stripe.forms import request_params
from zenskar.sandbox.stripe.routes import Route, route_of

if TYPE_CHECKING:
    from zenskar.sandbox.stripe.core import StripeSandbox

_VERSION = re.compile(r"\d{4}-\d{2}-\d{2}(\.[a-z_]+)?")


class Gateway:
    """Answers what begins with ``/v1/``."""

    def __init__(self, sandbox: StripeSandbox) -> None:
        self._sandbox = sandbox

    def handle(self, method: str, target: str, headers: dict[str, str], body: bytes) -> Response:
        """Answer one request. ``target`` may carry a query; ``headers`` are lower-cased."""
        parts = urlsplit(target)
        clean = unquote(parts.path)
        request_id = self._sandbox.ids.new("req")
        line = LoggedRequest(
            id=request_id,
            method=method,
            path=clean,
            params={},
            idempotency_key=headers.get("idempotency-key"),
            started_at=self._sandbox.clock.now(),
        )
        self._sandbox.request_log.add(line)
        try:
            response = self._answer(line, method, clean, parts.query, headers, body)
        except StripeError as error:
            line.error_code = error.code or error.type
            response = self._failed(error, request_id)
        line.status = response.status if response.cut is None else None
        response.headers.setdefault("Request-Id", request_id)
        response.headers.setdefault("Stripe-Version", headers.get("stripe-version", self._sandbox.api_version))
        if line.idempotency_key is not None:
            response.headers.setdefault("Idempotency-Key", line.idempotency_key)
        return response

    def _answer(
        self, line: LoggedRequest, method: str, path: str, query: str, headers: dict[str, str], body: bytes
    ) -> Response:
        key = self._sandbox.keys.key(headers)
        found = route_of(method, path)
        if found is None:
            raise unrecognized_url(method, path)
        route, id = found
        self._sandbox.keys.permit(key, method=method, permission=route.permission, account_id=self._sandbox.account_id)
        version = headers.get("stripe-version", self._sandbox.api_version)
        if _VERSION.fullmatch(version) is None:
            raise StripeError(400, f"Invalid Stripe API version: {version[:50]}")
        if headers.get("stripe-account", self._sandbox.account_id) != self._sandbox.account_id:
            raise account_invalid(headers["stripe-account"])
        limited = self._sandbox.limits.check(route.name)
        if limited is not None:
            raise limited
        line.params = request_params(method, query, headers, body)
        call = Call(
            method=method,
            path=path,
            route=route.name,
            id=id,
            request_id=line.id,
            api_version=version,
            idempotency_key=(headers.get("idempotency-key") or None) if method == "POST" else None,
            raw=line.params,
            params={},
        )
        fault = self._sandbox.faults.strike(method, path)
        if fault is not None:
            line.fault = f"{fault.phase}:{fault.effect}"
        return self._with_fault(call, route, line, fault)

    def _with_fault(self, call: Call, route: Route, line: LoggedRequest, fault: Fault | None) -> Response:
        before = fault if fault is not None and fault.phase == "before" else None
        after = fault if fault is not None and fault.phase == "after" else None
        forced: StripeError | None = None
        if before is not None:
            if before.effect in ("reset", "hang"):
                return _cut(before)
            if before.effect == "lock_timeout":
                raise lock_timeout()
            if before.effect == "status":
                if before.status == 429:
                    raise rate_limited("global-rate")
                forced = server_error(before.status)
                if before.status != 500:
                    # It never reached an endpoint: nothing began, and nothing is kept for the key.
                    raise forced
        replayed = self._claimed(call, line)
        if replayed is not None:
            return replayed
        if fault is not None and fault.effect == "late_commit":
            # The key stays in flight until then: a repeat in the meantime is answered 409.
            self._sandbox.later.add(fault.seconds, lambda: self._run_late(call, route, line))
            return _cut(fault)
        if before is not None and before.effect == "delay":
            self._sandbox.sleep(before.seconds)
        kept_error = server_error() if after is not None and after.effect == "status" and after.status == 500 else None
        response = self._run(call, route, line, forced, kept_error)
        if after is None:
            return response
        if after.effect == "delay":
            self._sandbox.sleep(after.seconds)
            return response
        if after.effect == "status":
            # Other than a 500 it was lost on the way: what the key keeps is the true result.
            return response if after.status == 500 else self._failed(server_error(after.status), call.request_id)
        return _cut(after)

    def _claimed(self, call: Call, line: LoggedRequest) -> Response | None:
        """Claim the idempotency key. Returns the answer when it was given before."""
        if call.idempotency_key is None:
            return None
        with self._sandbox.store.transaction():
            saved = self._sandbox.idempotency.begin(call.idempotency_key, path=call.path, params=call.raw)
        if saved is None:
            return None
        line.replayed = True
        saved.response.headers.update(
            {
                "Content-Type": "application/json",
                "Idempotent-Replayed": "true",
                "Original-Request": saved.original_request,
            }
        )
        return saved.response

    def _run(
        self,
        call: Call,
        route: Route,
        line: LoggedRequest,
        forced: StripeError | None,
        kept_error: StripeError | None,
    ) -> Response:
        """Execute under the lock and keep the result for the key. ``forced`` fails it; ``kept_error`` hides it.

        What the table of parameters refuses never began to execute and is not kept; a refusal from within is, a 400
        too (docs.stripe.com/error-low-level#content-errors).
        """
        kept: Response | None = None
        with self._sandbox.store.transaction():
            try:
                response, began = self._executed(call, route, line, forced)
                if kept_error is not None and response.status < 300:
                    response = self._failed(kept_error, call.request_id)
                if response.status == 500 and call.idempotency_key is not None:
                    # A repeat would only be given the same again.
                    response.headers["Stripe-Should-Retry"] = "false"
                if began:
                    kept = response
            finally:
                if call.idempotency_key is not None:
                    self._sandbox.idempotency.finish(call.idempotency_key, kept, request_id=call.request_id)
        if call.idempotency_key is not None and kept is not None:
            response.headers["Original-Request"] = call.request_id
        return response

    def _run_late(self, call: Call, route: Route, line: LoggedRequest) -> None:
        self._run(call, route, line, None, None)

    def _executed(
        self, call: Call, route: Route, line: LoggedRequest, forced: StripeError | None
    ) -> tuple[Response, bool]:
        """The answer, and whether execution began."""
        began = False
        try:
            call.params = parse(route.table, call.raw)
            paths = call.params.get("expand") or []
            expandable(route.permission, listed=route.listed, paths=paths)
            began = True
            if forced is not None:
                raise forced
            changes = self._sandbox.store.changes
            body = route.handler(self._sandbox, call)
            line.wrote = self._sandbox.store.changes > changes
            body = expanded(self._sandbox, body, paths)
        except StripeError as error:
            line.error_code = error.code or error.type
            return self._failed(error, call.request_id), began
        answer = orjson.dumps(body, option=orjson.OPT_INDENT_2)
        return Response(status=200, headers={"Content-Type": "application/json"}, body=answer), began

    def _failed(self, error: StripeError, request_id: str) -> Response:
        url = f"https://dashboard.stripe.com/{self._sandbox.account_id}/test/logs/{request_id}"
        return Response(
            status=error.status,
            headers={"Content-Type": "application/json", **error.headers},
            body=orjson.dumps(error.body(url), option=orjson.OPT_INDENT_2),
        )


def _cut(fault: Fault) -> Response:
    if fault.effect == "reset":
        return Response(status=0, cut="reset")
    return Response(status=0, cut="hang", hold=fault.seconds)
