from __future__ import annotations

from datetime import timedelta

import orjson
import pytest
from django.utils import timezone

from customers.stripe import integration as module
from customers.stripe.integration import StripeIntegration
from customers.stripe.signatures import message_read
from zenskar.sandbox.stripe.core import StripeSandbox

pytestmark = [pytest.mark.feature("G1"), pytest.mark.django_db]


def test_it_finds_our_record_by_its_email_however_many_were_created_since(
    sandbox: StripeSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PAGES", 0)
    stripe = StripeIntegration()
    body = stripe.create_body(reference="0190-ours", fields={"email": "ann@example.com"})
    created = stripe.create(body=body, key="a")
    now = timezone.now()

    found = stripe.find(reference="0190-ours", email="ann@example.com", sent=(now - timedelta(seconds=5), now))

    assert [record.remote_id for record in found] == [created.remote_id]


@pytest.mark.feature("G2")
@pytest.mark.parametrize("remote_id", ["../../v1/customers", "cus_1?x", "cus 1", "", "cus_1\n"])
def test_it_takes_no_id_that_could_lead_elsewhere(remote_id: str) -> None:
    event = {"id": "evt_1", "object": "event", "type": "customer.updated", "livemode": False}
    body = orjson.dumps({**event, "data": {"object": {"id": remote_id, "object": "customer"}}})

    message = message_read(body)

    assert (message.remote_id, message.ignore) == ("", "names no customer")
