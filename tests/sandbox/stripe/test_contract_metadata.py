from __future__ import annotations

from tests.sandbox.stripe.contract import Account, documented, error_of

METADATA = "docs.stripe.com/api/metadata"


@documented(METADATA)
def test_it_merges_metadata(account: Account) -> None:
    customer = account.new(metadata={"a": "1", "b": "2"})

    updated = account.customers.update(customer.id, {"metadata": {"b": "3", "c": "4"}})

    assert updated.metadata.to_dict() == {"a": "1", "b": "3", "c": "4"}


@documented(METADATA)
def test_it_unsets_one_key_by_an_empty_value(account: Account) -> None:
    customer = account.new(metadata={"a": "1", "b": "2"})

    updated = account.customers.update(customer.id, {"metadata": {"a": ""}})

    assert updated.metadata.to_dict() == {"b": "2"}


@documented(METADATA)
def test_it_unsets_all_keys_by_the_empty_string(account: Account) -> None:
    customer = account.new(metadata={"a": "1", "b": "2"})

    updated = account.customers.update(customer.id, {"metadata": ""})

    assert updated.metadata.to_dict() == {}


@documented(METADATA)
def test_it_takes_fifty_keys_and_no_more(account: Account) -> None:
    customer = account.new(metadata={f"key{number}": "x" for number in range(50)})

    error = error_of(lambda: account.customers.update(customer.id, {"metadata": {"one_more": "x"}}))

    assert len(customer.metadata.to_dict()) == 50
    assert error.http_status == 400


@documented(METADATA)
def test_it_takes_keys_of_forty_characters_and_no_longer(account: Account) -> None:
    customer = account.new(metadata={"k" * 40: "x"})

    error = error_of(lambda: account.customers.update(customer.id, {"metadata": {"k" * 41: "x"}}))

    assert customer.metadata.to_dict() == {"k" * 40: "x"}
    assert error.http_status == 400


@documented(METADATA)
def test_it_takes_values_of_500_characters_and_no_longer(account: Account) -> None:
    customer = account.new(metadata={"k": "é" * 500})

    error = error_of(lambda: account.customers.update(customer.id, {"metadata": {"k": "é" * 501}}))

    assert customer.metadata.to_dict() == {"k": "é" * 500}
    assert error.http_status == 400
