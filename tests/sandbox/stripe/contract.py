"""How a contract test says on what its assertion rests, and the account that it runs against."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import stripe

from zenskar.sandbox.stripe.core import StripeSandbox

Test = Callable[..., None]


def documented(source: str) -> Callable[[Test], Test]:
    """The behaviour is written down by Stripe at ``source``."""
    return pytest.mark.contract(basis="documented", source=source)


def observed(source: str) -> Callable[[Test], Test]:
    """The behaviour is not promised: ``source`` says who saw it where."""
    return pytest.mark.contract(basis="observed", source=source)


@dataclass(kw_only=True)
class Account:
    """A Stripe account in test mode: the sandbox, or a real one, which has no ``sandbox``."""

    client: stripe.StripeClient
    sandbox: StripeSandbox | None
    created: list[str] = field(default_factory=list)

    @property
    def customers(self) -> Any:
        return self.client.v1.customers

    def new(self, **params: Any) -> Any:
        """Create a customer that is deleted when the test ends."""
        customer = self.customers.create(params)
        self.created.append(customer.id)
        return customer

    def email(self) -> str:
        return f"contract-{uuid.uuid4().hex}@example.com"

    def price(self) -> str:
        """A recurring price to subscribe to."""
        if self.sandbox is not None:
            return "price_monthly"
        price = self.client.v1.prices.create(
            {
                "currency": "usd",
                "unit_amount": 100,
                "recurring": {"interval": "month"},
                "product_data": {"name": "Contract suite"},
            }
        )
        return price.id

    def subscribe(self, customer_id: str) -> Any:
        return self.client.v1.subscriptions.create(
            {"customer": customer_id, "items": [{"price": self.price()}], "trial_period_days": 30}
        )

    def events(self, type: str, object_id: str, *, at_least: int = 1) -> list[Any]:
        """Events of one object, newest first; waits for them, since Stripe records events a little later."""
        for _ in range(30):
            found = [
                event
                for event in self.client.v1.events.list({"type": type, "limit": 100}).data
                if event.data.object["id"] == object_id
            ]
            if len(found) >= at_least:
                return found
            time.sleep(1)
        raise AssertionError(f"No event {type} of {object_id} came.")

    def searched(self, query: str, *, until: Callable[[list[Any]], bool]) -> list[Any]:
        """Search results once they satisfy ``until``: search lags, by up to a minute as a rule."""
        if self.sandbox is not None:
            self.sandbox.clock.advance(60)
        for _ in range(90):
            found = self.customers.search({"query": query}).data
            if until(found):
                return list(found)
            if self.sandbox is not None:
                break
            time.sleep(1)
        raise AssertionError(f"The search {query} did not settle.")

    def clean_up(self) -> None:
        for id in self.created:
            try:
                self.customers.delete(id)
            except stripe.InvalidRequestError as error:
                if error.code != "resource_missing":
                    raise


def error_of(call: Callable[[], Any]) -> stripe.StripeError:
    """The error that ``call`` raises."""
    with pytest.raises(stripe.StripeError) as raised:
        call()
    return raised.value
