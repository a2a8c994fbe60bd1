from __future__ import annotations

import uuid

from tests.sandbox.stripe.contract import Account, documented, error_of, observed

EVENTS = "docs.stripe.com/api/events"


@documented(f"{EVENTS}/object")
def test_it_records_a_creation_with_request_and_key(account: Account) -> None:
    key = uuid.uuid4().hex
    customer = account.customers.create({"name": "Jenny"}, {"idempotency_key": key})
    account.created.append(customer.id)

    event = account.events("customer.created", customer.id)[0]

    assert event.id.startswith("evt_")
    assert event.object == "event"
    assert event.livemode is False
    assert event.data.object.to_dict() == customer.to_dict()
    assert event.request.id == customer.last_response.request_id
    assert event.request.idempotency_key == key
    assert event.api_version


@documented(f"{EVENTS}/object#event_object-data-previous_attributes")
def test_it_records_what_an_update_changed(account: Account) -> None:
    customer = account.new(name="Old", phone="123", metadata={"a": "1", "b": "2"})
    account.customers.update(customer.id, {"name": "New", "phone": "123", "metadata": {"b": "3", "c": "4"}})

    event = account.events("customer.updated", customer.id)[0]

    assert event.data.previous_attributes.to_dict() == {"name": "Old", "metadata": {"b": "2", "c": None}}
    assert event.data.object.name == "New"


@observed("an update that changes nothing makes no event")
def test_it_records_nothing_for_an_update_without_a_difference(account: Account) -> None:
    customer = account.new(name="Jenny")
    account.customers.update(customer.id, {"name": "Jenny"})
    account.customers.update(customer.id, {"name": "Jane"})

    events = account.events("customer.updated", customer.id)

    assert len(events) == 1


@observed("customer.deleted carries the customer as it was, stripe/sync-engine #265")
def test_it_records_a_deletion_without_a_flag_on_the_object(account: Account) -> None:
    customer = account.new(name="Jenny")
    account.customers.delete(customer.id)

    event = account.events("customer.deleted", customer.id)[0]

    assert event.data.object.name == "Jenny"
    assert "deleted" not in event.data.object.to_dict()


@documented(f"{EVENTS}/retrieve")
def test_it_retrieves_an_event(account: Account) -> None:
    customer = account.new()
    event = account.events("customer.created", customer.id)[0]

    found = account.client.v1.events.retrieve(event.id)

    assert found.to_dict()["data"] == event.to_dict()["data"]


@documented(f"{EVENTS}/list: a type may use * as a wildcard")
def test_it_lists_events_by_wildcard(account: Account) -> None:
    customer = account.new(name="Old")
    account.customers.update(customer.id, {"name": "New"})

    events = account.events("customer.*", customer.id, at_least=2)

    assert {event.type for event in events} == {"customer.created", "customer.updated"}


@documented(f"{EVENTS}/list")
def test_it_lists_events_of_several_types(account: Account) -> None:
    customer = account.new(name="Old")
    account.customers.update(customer.id, {"name": "New"})
    account.events("customer.updated", customer.id)

    listed = account.client.v1.events.list({"types": ["customer.updated", "customer.deleted"], "limit": 100})

    assert {event.type for event in listed.data} <= {"customer.updated", "customer.deleted"}
    assert customer.id in {event.data.object["id"] for event in listed.data}


@documented("docs.stripe.com/error-codes#resource-missing")
def test_it_answers_an_unknown_event_with_resource_missing(account: Account) -> None:
    error = error_of(lambda: account.client.v1.events.retrieve("evt_nothing"))

    assert (error.http_status, error.code) == (404, "resource_missing")
