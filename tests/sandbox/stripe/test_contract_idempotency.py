from __future__ import annotations

import uuid

import stripe

from tests.sandbox.stripe.contract import Account, documented, error_of, observed

IDEMPOTENCY = "docs.stripe.com/api/idempotent_requests"


def new_key() -> str:
    return uuid.uuid4().hex


@documented(IDEMPOTENCY)
def test_it_answers_the_same_key_with_the_same_customer(account: Account) -> None:
    options = {"idempotency_key": new_key()}
    email = account.email()

    first = account.customers.create({"email": email}, options)
    again = account.customers.create({"email": email}, options)

    account.created.append(first.id)
    assert again.to_dict() == first.to_dict()
    assert len(account.customers.list({"email": email}).data) == 1


@documented("docs.stripe.com/error-low-level#idempotency")
def test_it_marks_replayed_answers(account: Account) -> None:
    options = {"idempotency_key": new_key()}

    first = account.customers.create({}, options)
    again = account.customers.create({}, options)

    account.created.append(first.id)
    assert "idempotent-replayed" not in first.last_response.headers
    assert again.last_response.headers["idempotent-replayed"] == "true"
    assert again.last_response.headers["original-request"] == first.last_response.request_id
    assert again.last_response.headers["idempotency-key"] == options["idempotency_key"]


@documented(IDEMPOTENCY)
def test_it_replays_the_first_answer_after_the_customer_changed(account: Account) -> None:
    options = {"idempotency_key": new_key()}
    customer = account.new(name="Old")
    first = account.customers.update(customer.id, {"name": "New"}, options)
    account.customers.update(customer.id, {"name": "Newer"})

    again = account.customers.update(customer.id, {"name": "New"}, options)

    assert again.to_dict() == first.to_dict()
    assert account.customers.retrieve(customer.id).name == "Newer"


@documented(IDEMPOTENCY)
def test_it_refuses_a_key_with_other_parameters(account: Account) -> None:
    options = {"idempotency_key": new_key()}
    first = account.customers.create({"name": "Jenny"}, options)
    account.created.append(first.id)

    error = error_of(lambda: account.customers.create({"name": "Jane"}, options))

    assert isinstance(error, stripe.IdempotencyError)
    assert error.http_status == 400
    assert error.json_body["error"]["type"] == "idempotency_error"


@observed("wording in stripe-ruby #598")
def test_it_refuses_a_key_at_another_endpoint(account: Account) -> None:
    options = {"idempotency_key": new_key()}
    customer = account.customers.create({"name": "Jenny"}, options)
    account.created.append(customer.id)

    error = error_of(lambda: account.customers.update(customer.id, {"name": "Jenny"}, options))

    assert isinstance(error, stripe.IdempotencyError)
    assert "same endpoint" in error.user_message


@documented(f"{IDEMPOTENCY}: results are not saved when parameters fail validation")
def test_it_does_not_keep_what_validation_refused(account: Account) -> None:
    options = {"idempotency_key": new_key()}
    error = error_of(lambda: account.customers.create({"email": "nobody"}, options))

    customer = account.customers.create({"email": account.email()}, options)

    account.created.append(customer.id)
    assert error.http_status == 400
    assert "idempotent-replayed" not in customer.last_response.headers


@documented(f"{IDEMPOTENCY}: keys have no effect in DELETE")
def test_it_answers_a_repeated_delete_with_resource_missing_whatever_the_key(account: Account) -> None:
    options = {"idempotency_key": new_key()}
    customer = account.new()
    account.customers.delete(customer.id, options=options)

    error = error_of(lambda: account.customers.delete(customer.id, options=options))

    assert (error.http_status, error.code) == (404, "resource_missing")


@documented(f"{IDEMPOTENCY}: up to 255 characters")
def test_it_takes_keys_of_255_characters_and_no_longer(account: Account) -> None:
    key = (new_key() * 8)[:255]

    customer = account.customers.create({}, {"idempotency_key": key})
    error = error_of(lambda: account.customers.create({}, {"idempotency_key": key + "x"}))

    account.created.append(customer.id)
    assert error.http_status == 400
