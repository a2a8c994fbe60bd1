"""Stripe as an integration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import partial
from typing import Any, ClassVar, Final

from customers.emails import email_with_ascii_domain
from customers.integrations import (
    Changes,
    Fields,
    Found,
    Integration,
    MessagePage,
    RecordPage,
    RemoteMessage,
    RemoteMissing,
    RemoteRecord,
)
from customers.stripe import mapping
from customers.stripe.client import CALL_TIMEOUT, errors_translated, stripe_client, stripe_read
from customers.stripe.conf import stripe_settings
from customers.stripe.events import events_page
from customers.stripe.finding import CreatedSearch
from customers.stripe.listing import customers_page
from customers.stripe.signatures import message_read, message_record, signature_verify

_PAGE: Final = 100
_ENDED: Final = frozenset({"canceled", "incomplete_expired"})
# Refusals of a value as such; docs.stripe.com/error-codes.
_FINAL: Final = frozenset(
    {
        "country_unsupported",
        "email_invalid",
        "invalid_characters",
        "parameter_invalid_empty",
        "parameter_invalid_integer",
        "parameter_invalid_string_blank",
        "parameter_invalid_string_empty",
        "parameter_missing",
        "parameter_unknown",
        "parameters_exclusive",
        "url_invalid",
    }
)


class StripeIntegration(Integration):
    """Customers of one Stripe account."""

    name: ClassVar[str] = "stripe"
    final_codes = _FINAL

    def __init__(self) -> None:
        self._config = stripe_settings()
        self.account = self._config.account
        self.livemode = self._config.livemode
        self.rate = self._config.rate
        self.call_timeout = CALL_TIMEOUT
        self.delete_policy = self._config.delete_policy
        self.remote_delete_policy = self._config.remote_delete_policy

    def is_set_up(self) -> bool:
        return bool(self._config.api_key)

    def create_body(self, *, reference: str, fields: Fields) -> dict[str, Any]:
        return mapping.create_body(reference=reference, fields=fields)

    def update_body(self, *, changes: Changes) -> dict[str, Any]:
        return mapping.update_body(changes=changes)

    def create(self, *, body: dict[str, Any], key: str) -> RemoteRecord:
        with errors_translated():
            created = self._client.v1.customers.create(body, {"idempotency_key": key})
            return mapping.record_of(created.to_dict())

    def update(self, *, remote_id: str, body: dict[str, Any], key: str) -> RemoteRecord:
        with errors_translated():
            updated = self._client.v1.customers.update(remote_id, body, {"idempotency_key": key})
            return mapping.record_of(updated.to_dict())

    def delete(self, *, remote_id: str, key: str) -> None:
        # Stripe's keys mean nothing for DELETE: a repeat finds the customer missing, which the caller expects.
        with errors_translated():
            self._client.v1.customers.delete(remote_id)

    def retrieve(self, *, remote_id: str) -> RemoteRecord | None:
        try:
            with errors_translated():
                return mapping.record_of(self._client.v1.customers.retrieve(remote_id).to_dict())
        except RemoteMissing:
            return None

    def find(self, *, reference: str, email: str, sent: tuple[datetime, datetime], resume: str = "") -> Iterator[Found]:
        search = CreatedSearch(
            self._client.v1.customers, reference=reference, email=email_with_ascii_domain(email), sent=sent
        )
        return search.steps(resume)

    def page(self, *, since: datetime | None, until: datetime, after: str = "") -> RecordPage:
        return customers_page(partial(stripe_read, self._config), since=since, until=until, after=after)

    def delete_obstacle(self, *, remote_id: str) -> str:
        try:
            with errors_translated():
                # Canceled ones are not listed unless they are asked for.
                listed = self._client.v1.subscriptions.list({"customer": remote_id, "limit": _PAGE})
                live = [subscription.id for subscription in listed.data if subscription.status not in _ENDED]
        except RemoteMissing:
            return ""
        if not live:
            return ""
        return f"Deleting it would cancel {len(live)} live subscription(s): {', '.join(live[:5])}."

    def webhook_verify(self, *, body: bytes, headers: Mapping[str, str]) -> RemoteMessage:
        signature_verify(body, headers.get("Stripe-Signature", ""), self._config.webhook_secrets)
        return message_read(body)

    def messages(self, *, since: datetime, until: datetime, after: str = "") -> MessagePage:
        return events_page(self._client, since=since, until=until, after=after)

    def webhook_record(self, payload: Mapping[str, Any]) -> tuple[RemoteRecord | None, str]:
        return message_record(payload)

    @property
    def _client(self) -> Any:
        return stripe_client(self._config)
