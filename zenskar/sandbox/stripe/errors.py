"""Errors in the shape and with the wording that Stripe answers them.

Sources: docs.stripe.com/api/errors, docs.stripe.com/error-codes; the wording of messages as reported in public issues.
"""

from __future__ import annotations

from typing import Any

INVALID_REQUEST = "invalid_request_error"


class SandboxError(Exception):
    """The sandbox could not do what was asked of it."""


class LiveKeyRefused(SandboxError):
    """The sandbox takes test keys only, so that a live key never lies in its logs or its state file."""


class StripeError(Exception):
    """An answer of Stripe that is not 2xx.

    Arguments: HTTP ``status``; ``type``, ``code``, ``param`` as in Stripe's error object; ``headers`` to add.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str = INVALID_REQUEST,
        code: str | None = None,
        param: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.type = type
        self.code = code
        self.param = param
        self.headers = headers or {}

    def body(self, request_log_url: str) -> dict[str, Any]:
        error: dict[str, Any] = {}
        if self.code is not None:
            error["code"] = self.code
            error["doc_url"] = f"https://stripe.com/docs/error-codes/{self.code.replace('_', '-')}"
        error["message"] = self.message
        if self.param is not None:
            error["param"] = self.param
        error["request_log_url"] = request_log_url
        error["type"] = self.type
        return {"error": error}


def resource_missing(kind: str, id: str, *, param: str = "id", status: int = 404) -> StripeError:
    """No such object. 404 when the URL names it, 400 when a parameter does."""
    return StripeError(status, f"No such {kind}: '{id}'", code="resource_missing", param=param)


def unrecognized_url(method: str, path: str) -> StripeError:
    return StripeError(
        404,
        f"Unrecognized request URL ({method}: {path}). Please see https://stripe.com/docs or we can help at "
        "https://support.stripe.com/.",
    )


def parameters_unknown(names: list[str]) -> StripeError:
    plural = "s" if len(names) > 1 else ""
    return StripeError(
        400, f"Received unknown parameter{plural}: {', '.join(names)}", code="parameter_unknown", param=names[0]
    )


def parameter_unsupported(name: str) -> StripeError:
    """Stripe knows the parameter and this sandbox does not: said loudly, or a test would prove nothing."""
    return StripeError(
        400,
        f"'{name}' is a parameter of Stripe that this sandbox does not implement.",
        code="sandbox_unsupported",
        param=name,
    )


def parameter_missing(name: str) -> StripeError:
    return StripeError(400, f"Missing required param: {name}.", code="parameter_missing", param=name)


def rate_limited(reason: str) -> StripeError:
    return StripeError(
        429,
        "Request rate limit exceeded. Learn more about rate limits here https://stripe.com/docs/rate-limits.",
        code="rate_limit",
        headers={"Stripe-Rate-Limited-Reason": reason, "Stripe-Should-Retry": "false"},
    )


def lock_timeout() -> StripeError:
    return StripeError(
        429,
        "This object cannot be accessed right now because another API request or Stripe process is currently "
        "accessing it. If you see this error intermittently, retry the request. If you see this error frequently and "
        "are making multiple concurrent requests to a single object, make your requests serially or at a lower rate. "
        "For more details, see https://stripe.com/docs/rate-limits#object-lock-timeouts.",
        code="lock_timeout",
        headers={"Stripe-Should-Retry": "true", "Stripe-Rate-Limited-Reason": "resource-specific"},
    )


def server_error(status: int = 500) -> StripeError:
    return StripeError(
        status,
        "An unknown error occurred. If this problem persists, please contact us at https://support.stripe.com/.",
        type="api_error",
    )
