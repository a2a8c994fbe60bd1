from __future__ import annotations

import stripe

from tests.sandbox.stripe.contract import Account, documented, error_of, observed

CUSTOMERS = "docs.stripe.com/api/customers"


@documented(f"{CUSTOMERS}/create")
def test_it_creates_a_customer_with_the_documented_fields(account: Account) -> None:
    email = account.email()

    customer = account.new(name="Jenny Rosen", email=email, phone="+15551234567", description="First")

    body = customer.to_dict()
    assert body["id"].startswith("cus_")
    assert body["object"] == "customer"
    assert (body["name"], body["email"], body["phone"]) == ("Jenny Rosen", email, "+15551234567")
    assert body["description"] == "First"
    assert body["address"] is None
    assert body["balance"] == 0
    assert body["livemode"] is False
    assert body["metadata"] == {}
    assert body["preferred_locales"] == []
    assert body["shipping"] is None
    assert body["tax_exempt"] == "none"
    assert "deleted" not in body


@documented(f"{CUSTOMERS}/create")
def test_it_creates_a_customer_of_nothing(account: Account) -> None:
    customer = account.new()

    assert customer.name is None
    assert customer.email is None


@documented(f"{CUSTOMERS}/retrieve")
def test_it_retrieves_what_was_created(account: Account) -> None:
    customer = account.new(name="Jenny", metadata={"plan": "pro"})

    found = account.customers.retrieve(customer.id)

    assert found.to_dict() == customer.to_dict()


@documented(f"{CUSTOMERS}/update")
def test_it_leaves_what_an_update_does_not_name(account: Account) -> None:
    customer = account.new(name="Jenny", phone="123", email=account.email())

    updated = account.customers.update(customer.id, {"name": "Jane"})

    assert updated.to_dict() == {**customer.to_dict(), "name": "Jane"}


@observed("stripe-python and the dashboard unset strings so; the description allows the empty string")
def test_it_unsets_strings_by_the_empty_string(account: Account) -> None:
    customer = account.new(name="Jenny", phone="123", email=account.email(), description="x")

    updated = account.customers.update(customer.id, {"name": "", "phone": "", "email": "", "description": ""})

    assert (updated.name, updated.phone, updated.email, updated.description) == (None, None, None, None)


@documented(f"{CUSTOMERS}/object#customer_object-address")
def test_it_answers_an_address_with_all_of_its_keys(account: Account) -> None:
    customer = account.new(address={"line1": "1 Main St", "country": "US"})

    assert customer.address.to_dict() == {
        "city": None,
        "country": "US",
        "line1": "1 Main St",
        "line2": None,
        "postal_code": None,
        "state": None,
    }


@observed("all keys sent, so that merging and replacing come to the same")
def test_it_unsets_parts_of_an_address_by_empty_strings(account: Account) -> None:
    customer = account.new(address={"line1": "1 Main St", "line2": "Flat 2", "city": "Paris"})
    wanted = {"line1": "2 Main St", "line2": "", "city": "Lyon", "state": "", "postal_code": "", "country": ""}

    updated = account.customers.update(customer.id, {"address": wanted})

    assert updated.address.to_dict() == {key: value or None for key, value in wanted.items()}


@documented(f"{CUSTOMERS}/update#update_customer-address")
def test_it_unsets_an_address_by_the_empty_string(account: Account) -> None:
    customer = account.new(address={"line1": "1 Main St"})

    updated = account.customers.update(customer.id, {"address": ""})

    assert updated.address is None


@documented(f"{CUSTOMERS}/create#create_customer-shipping")
def test_it_keeps_a_shipping_address_and_wants_its_name(account: Account) -> None:
    shipping = {"name": "Jenny", "address": {"line1": "1 Main St"}}

    customer = account.new(shipping=shipping)
    error = error_of(lambda: account.customers.create({"shipping": {"address": {"line1": "1 Main St"}}}))

    assert customer.shipping.name == "Jenny"
    assert customer.shipping.address.line1 == "1 Main St"
    assert isinstance(error, stripe.InvalidRequestError)
    assert (error.http_status, error.param) == (400, "shipping[name]")


@documented(f"{CUSTOMERS}/delete")
def test_it_answers_a_delete_with_id_object_and_deleted(account: Account) -> None:
    customer = account.new()

    deleted = account.customers.delete(customer.id)

    assert deleted.to_dict() == {"id": customer.id, "object": "customer", "deleted": True}


@documented(f"{CUSTOMERS}/retrieve: a deleted customer can still be retrieved")
def test_it_retrieves_a_deleted_customer_as_deleted(account: Account) -> None:
    customer = account.new(name="Jenny")
    account.customers.delete(customer.id)

    found = account.customers.retrieve(customer.id)

    assert found.to_dict() == {"id": customer.id, "object": "customer", "deleted": True}


@observed("resource_missing reported for deleted customers in public issues, pinax-stripe-light #7")
def test_it_refuses_to_update_a_deleted_customer(account: Account) -> None:
    customer = account.new()
    account.customers.delete(customer.id)

    error = error_of(lambda: account.customers.update(customer.id, {"name": "Jane"}))

    assert isinstance(error, stripe.InvalidRequestError)
    assert (error.http_status, error.code, error.param) == (404, "resource_missing", "id")


@observed("resource_missing reported for deleted customers in public issues, pinax-stripe-light #7")
def test_it_answers_a_second_delete_with_resource_missing(account: Account) -> None:
    customer = account.new()
    account.customers.delete(customer.id)

    error = error_of(lambda: account.customers.delete(customer.id))

    assert (error.http_status, error.code) == (404, "resource_missing")


@documented("docs.stripe.com/api/customers: nothing says that an address is unique, and it is not")
def test_it_takes_the_same_email_twice(account: Account) -> None:
    email = account.email()

    first, second = account.new(email=email), account.new(email=email)

    assert first.id != second.id


@documented("docs.stripe.com/changelog/clover/2025-09-30/customer-business-individual-names")
def test_it_takes_the_name_from_the_business_name_first(account: Account) -> None:
    customer = account.new(business_name="Acme", individual_name="Jenny")

    assert customer.name == "Acme"


@documented(f"{CUSTOMERS}/create#create_customer-preferred_locales")
def test_it_keeps_lists(account: Account) -> None:
    customer = account.new(preferred_locales=["fr", "en"])

    assert customer.preferred_locales == ["fr", "en"]


@documented("docs.stripe.com/expand")
def test_it_expands_subscriptions_when_asked(account: Account) -> None:
    customer = account.new()

    plain = account.customers.retrieve(customer.id)
    expanded = account.customers.retrieve(customer.id, {"expand": ["subscriptions"]})

    assert "subscriptions" not in plain.to_dict()
    assert expanded.subscriptions.to_dict()["data"] == []
