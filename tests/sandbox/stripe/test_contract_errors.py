from __future__ import annotations

import pytest
import stripe

from tests.sandbox.stripe.contract import Account, documented, error_of, observed

ERRORS = "docs.stripe.com/api/errors"


@documented("docs.stripe.com/error-codes#resource-missing")
def test_it_answers_an_unknown_customer_with_resource_missing(account: Account) -> None:
    error = error_of(lambda: account.customers.retrieve("cus_nobody"))

    assert isinstance(error, stripe.InvalidRequestError)
    assert (error.http_status, error.code, error.param) == (404, "resource_missing", "id")
    assert error.user_message == "No such customer: 'cus_nobody'"
    assert error.json_body["error"]["type"] == "invalid_request_error"


@documented("docs.stripe.com/error-codes#parameter-unknown")
def test_it_refuses_unknown_parameters(account: Account) -> None:
    error = error_of(lambda: account.customers.create({"nickname": "Jen"}))

    assert isinstance(error, stripe.InvalidRequestError)
    assert (error.http_status, error.code, error.param) == (400, "parameter_unknown", "nickname")
    assert error.user_message == "Received unknown parameter: nickname"


@documented("docs.stripe.com/error-codes#parameter-unknown")
def test_it_names_unknown_parameters_within_objects(account: Account) -> None:
    error = error_of(lambda: account.customers.create({"address": {"planet": "Earth"}}))

    assert (error.http_status, error.code) == (400, "parameter_unknown")
    assert error.param == "address[planet]"


@observed("message in exercism/website #7154, code in masslight/ottehr #7319")
@pytest.mark.parametrize("email", ["nobody", "otameshi@com", " jenny@example.com", "a b@example.com"])
def test_it_refuses_what_is_no_email(account: Account, email: str) -> None:
    error = error_of(lambda: account.customers.create({"email": email}))

    assert (error.http_status, error.code, error.param) == (400, "email_invalid", "email")
    assert error.user_message.startswith("Invalid email address:")


@documented("Stripe's OpenAPI description: maxLength")
@pytest.mark.parametrize(("name", "longest"), [("name", 256), ("phone", 20), ("description", 5000)])
def test_it_refuses_strings_that_are_too_long(account: Account, name: str, longest: int) -> None:
    customer = account.new(**{name: "7" * longest})

    error = error_of(lambda: account.customers.update(customer.id, {name: "7" * (longest + 1)}))

    assert customer.to_dict()[name] == "7" * longest
    assert (error.http_status, error.param) == (400, name)


@documented("docs.stripe.com/api/authentication")
def test_it_refuses_a_wrong_key(account: Account) -> None:
    error = error_of(lambda: account.customers.list(options={"api_key": "sk_test_wrong"}))

    assert isinstance(error, stripe.AuthenticationError)
    assert error.http_status == 401


@observed("wording of Stripe's answer to unknown paths")
def test_it_answers_unknown_paths_with_404(account: Account) -> None:
    error = error_of(lambda: account.client.raw_request("get", "/v1/no_such_thing"))

    assert error.http_status == 404
    assert "Unrecognized request URL (GET: /v1/no_such_thing)" in error.user_message


@documented(f"{ERRORS}: every answer carries its request id")
def test_it_names_each_request(account: Account) -> None:
    customer = account.new()
    error = error_of(lambda: account.customers.retrieve("cus_nobody"))

    assert customer.last_response.request_id.startswith("req_")
    assert error.request_id.startswith("req_")
    assert error.request_id != customer.last_response.request_id


@documented("docs.stripe.com/api/versioning")
def test_it_says_which_version_it_answers(account: Account) -> None:
    customer = account.new()

    assert customer.last_response.headers["stripe-version"] == stripe.api_version


@documented("docs.stripe.com/api/pagination: limit between 1 and 100")
@pytest.mark.parametrize("limit", [0, 101])
def test_it_refuses_limits_out_of_range(account: Account, limit: int) -> None:
    error = error_of(lambda: account.customers.list({"limit": limit}))

    assert (error.http_status, error.param) == (400, "limit")


@documented("docs.stripe.com/connect/authentication; code account_invalid")
def test_it_refuses_another_account(account: Account) -> None:
    error = error_of(lambda: account.customers.list(options={"stripe_account": "acct_1AAAAAAAAAAAAAAA"}))

    assert isinstance(error, stripe.PermissionError)
    assert (error.http_status, error.json_body["error"]["code"]) == (403, "account_invalid")


@documented("docs.stripe.com/api/accounts/retrieve")
def test_it_tells_its_account(account: Account) -> None:
    found = account.client.v1.accounts.retrieve_current()

    assert found.id.startswith("acct_")
    assert found.object == "account"


@documented("docs.stripe.com/expand")
def test_it_refuses_to_expand_what_cannot_be(account: Account) -> None:
    customer = account.new()

    error = error_of(lambda: account.customers.retrieve(customer.id, {"expand": ["name"]}))

    assert error.http_status == 400
    assert "cannot be expanded" in error.user_message
