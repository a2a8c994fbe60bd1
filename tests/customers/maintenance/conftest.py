from __future__ import annotations

import io
import json
from typing import Any

import pytest
from django.core.management import call_command
from pytest_django import Settings

from customers.models import Customer
from customers.services import customer_create
from tests.customers.stripe.conftest import StripeSide, sandbox, stripe_server, stripe_side
from tests.customers.sync.conftest import side, world
from tests.operations.conftest import staff_client

__all__ = ["sandbox", "side", "staff_client", "stripe_server", "stripe_side", "world"]


@pytest.fixture
def both(stripe_side: StripeSide, settings: Settings) -> StripeSide:
    """Both sides, where what was made a moment ago is old enough for everything."""
    settings.RECONCILE_GRACE = 0
    settings.RECONCILE_MIN_AGE = 0
    return stripe_side


def unheard(side: StripeSide) -> None:
    """Webhooks that were sent so far get lost."""
    side.sandbox.webhooks.pending()


def linked(side: StripeSide, **fields: Any) -> tuple[Customer, str]:
    """A customer in sync on both sides, and its id there."""
    customer = customer_create(**fields)
    side.rest()
    return customer, side.state(customer).remote_id or ""


def run(name: str, *words: str) -> tuple[int, Any]:
    """A command's exit status, and the JSON document that it printed."""
    written, status = io.StringIO(), 0
    try:
        call_command(name, *words, "--json", stdout=written)
    except SystemExit as exc:
        status = int(exc.code or 0)
    return status, json.loads(written.getvalue())


def reconcile(*words: str) -> tuple[int, dict[str, Any]]:
    """The command's exit status, and what came of it."""
    status, document = run("stripe_reconcile", *words)
    return status, document["result"]
