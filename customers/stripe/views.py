"""The address that Stripe's webhooks come to."""

from __future__ import annotations

from typing import Any

import structlog
from django.http import HttpRequest, HttpResponseBase, JsonResponse
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.csrf import csrf_exempt

from customers.integrations import WebhookRefused, integration_get
from customers.stripe.conf import stripe_settings
from customers.sync.webhooks import webhook_store
from operations.errors import BodyTooLarge, ProblemError

log = structlog.get_logger(__name__)


class SignatureInvalid(ProblemError):
    """The body is not signed with a secret that is in force, or was signed too long ago."""

    code = "signature_invalid"
    title = "Signature not valid"


class MethodNotAllowed(ProblemError):
    """Webhooks are posted."""

    status = 405
    code = "method_not_allowed"
    title = "Method not allowed"


@method_decorator(csrf_exempt, name="dispatch")
class StripeWebhookView(View):
    """Verify, store once, answer, and only then have the work begin.

    A plain view: whoever holds the signing secret needs no key, and the signature is over the bytes as they came.
    """

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if request.method != "POST":
            raise MethodNotAllowed(headers={"Allow": "POST"})
        limit = stripe_settings().webhook_max_bytes
        body = request.read(limit + 1)
        if len(body) > limit:
            raise BodyTooLarge
        integration = integration_get("stripe")
        try:
            message = integration.webhook_verify(body=body, headers=request.headers)
        except WebhookRefused as exc:
            log.warning("webhook_refused", integration=integration.name, size=len(body))
            raise SignatureInvalid from exc
        except ProblemError as exc:
            log.warning("webhook_unreadable", integration=integration.name, size=len(body), code=exc.code)
            raise
        stored = webhook_store(integration, message)
        log.info(
            "webhook_received", integration=integration.name, event_id=message.event_id, type=message.type, new=stored
        )
        return JsonResponse({"received": True})
