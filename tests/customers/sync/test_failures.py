"""What a failed call does to the row, and what it costs the others."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.utils import timezone
from pytest_django import Settings

from customers.integrations import (
    ConfigurationError,
    IntegrationError,
    PermanentError,
    RateLimited,
    RetryableError,
    Unreachable,
)
from customers.models import Customer, SyncAccount, SyncState
from customers.services import customer_create, customer_update
from customers.sync.engine import Outcome
from customers.sync.runner import sync_due_once
from tests.customers.sync.conftest import Side
from tests.customers.sync.memory import Call

pytestmark = pytest.mark.django_db


def refuse(side: Side, error: IntegrationError, *, method: str = "") -> None:
    """The other side answers every call so, or those of one kind."""

    def strike(call: Call) -> None:
        if method in ("", call.method):
            raise error

    side.world.before.append(strike)


def dirty_customer(side: Side) -> Customer:
    customer = customer_create(name="Ada")
    side.poke()
    return customer


@pytest.mark.feature("C12")
@pytest.mark.parametrize("make", [RetryableError, Unreachable])
def test_it_waits_longer_after_each_failure(
    side: Side, settings: Settings, make: Callable[..., IntegrationError]
) -> None:
    settings.SYNC_RETRY_BASE_DELAY, settings.SYNC_RETRY_MAX_DELAY = 10, 300
    customer = dirty_customer(side)
    refuse(side, make("It does not answer.", code="planted"))

    waits = []
    for _ in range(30):
        SyncAccount.objects.update(closed_until=None)
        side.sync(customer)
        waits.append((side.state(customer).next_attempt_at - timezone.now()).total_seconds())

    state = side.state(customer)
    assert state.status == SyncState.Status.RETRYING
    assert (state.attempts, state.last_error_code) == (30, "planted")
    assert state.dirty_at is not None
    assert max(waits[:1]) <= 20
    assert max(waits) <= 300
    assert max(waits) > 30


@pytest.mark.feature("C12")
def test_it_gives_up_what_was_refused_until_somebody_changes_it(side: Side) -> None:
    customer = dirty_customer(side)
    refuse(side, PermanentError("Invalid phone.", code="invalid"))

    outcome = side.sync(customer)

    state = side.state(customer)
    assert outcome is Outcome.FAILED
    assert (state.status, state.last_error_message, state.dirty_at) == ("failed", "Invalid phone.", None)

    side.world.before.clear()
    customer_update(customer_id=customer.pk, changes={"phone": "1"})
    side.rest()

    state = side.state(customer)
    assert (state.status, state.attempts, state.last_error_class) == ("in_sync", 0, "")
    assert side.remote(customer) == {"name": "Ada", "phone": "1"}


@pytest.mark.feature("C12", "G4")
def test_a_refused_change_is_not_taken_for_agreed(side: Side) -> None:
    """Else the next look would take the other side's old value for newer, and undo the change here."""
    customer = side.linked(name="Ada")
    refuse(side, PermanentError("Invalid name.", code="invalid"), method="update")
    customer_update(customer_id=customer.pk, changes={"name": "Ada L."})
    side.poke()
    side.sync(customer)
    side.world.before.clear()

    SyncState.objects.filter(customer=customer).look_again()
    side.rest()

    customer.refresh_from_db()
    assert customer.name == "Ada L."
    assert side.remote(customer)["name"] == "Ada L."


@pytest.mark.feature("C12")
@pytest.mark.parametrize(
    ("error", "seconds"),
    [(ConfigurationError("The key is wrong."), 20), (RateLimited("Slower.", retry_after=7.0), 5)],
)
def test_it_closes_the_account_and_uses_up_no_attempts(side: Side, error: IntegrationError, seconds: float) -> None:
    customers = [dirty_customer(side) for _ in range(3)]
    refuse(side, error)

    side.sync(customers[0])
    done = sync_due_once(budget=0)

    account = SyncAccount.objects.get()
    assert done == 0
    assert len(side.world.calls) == 1
    assert account.closed_until is not None
    assert (account.closed_until - timezone.now()).total_seconds() > seconds
    assert [side.state(customer).attempts for customer in customers] == [0, 0, 0]


@pytest.mark.feature("D11")
def test_it_stops_calling_after_three_silences_and_goes_on_when_the_other_side_is_back(side: Side) -> None:
    customers = [dirty_customer(side) for _ in range(5)]
    refuse(side, Unreachable("No answer."))

    for customer in customers:
        side.sync(customer)
        # Closed for half a second, which a busy machine may need for the next one.
        closed = SyncAccount.objects.filter(closed_until__isnull=False)
        closed.update(closed_until=timezone.now() + timedelta(hours=1))
    calls = len(side.world.calls)
    side.world.before.clear()
    SyncAccount.objects.update(closed_until=timezone.now())
    side.rest()

    assert calls == 3
    assert [side.state(customer).attempts for customer in customers] == [0] * 5
    assert len(side.world.living()) == 5
    account = SyncAccount.objects.get()
    assert (account.failures, account.closed_until) == (0, None)


@pytest.mark.feature("C12")
def test_it_turns_a_defect_of_ours_into_a_row(side: Side) -> None:
    customer = dirty_customer(side)

    def break_down(call: Call) -> None:
        raise ZeroDivisionError("secret detail")

    side.world.before.append(break_down)

    outcome = side.sync(customer)

    state = side.state(customer)
    assert outcome is Outcome.FAILED
    assert (state.last_error_code, state.last_error_message) == ("internal", "Internal error: ZeroDivisionError")
    assert state.lease_until is None
