from __future__ import annotations

from django.urls import URLPattern, re_path

from customers.stripe.views import StripeWebhookView

urlpatterns: list[URLPattern] = [
    re_path(r"^(?:api/v1/)?webhooks/stripe/?$", StripeWebhookView.as_view(), name="stripe-webhooks"),
]
