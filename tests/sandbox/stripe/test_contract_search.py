from __future__ import annotations

import pytest

from tests.sandbox.stripe.contract import Account, documented, error_of

SEARCH = "docs.stripe.com/search"


@documented(SEARCH)
def test_it_finds_by_metadata(account: Account) -> None:
    mark = account.email()
    customer = account.new(metadata={"mark": mark})

    found = account.searched(f"metadata['mark']:'{mark}'", until=lambda data: len(data) == 1)

    assert found[0].to_dict() == customer.to_dict()


@documented(f"{SEARCH}: string matches ignore case")
def test_it_finds_by_email_in_any_case(account: Account) -> None:
    email = account.email()
    customer = account.new(email=email)

    found = account.searched(f'email:"{email.upper()}"', until=lambda data: len(data) == 1)

    assert [each.id for each in found] == [customer.id]


@documented(f"{SEARCH}: combined clauses, negation, substring")
def test_it_combines_clauses(account: Account) -> None:
    email = account.email()
    wanted = account.new(email=email, name="Wanted", metadata={"kind": "a"})
    account.new(email=email, name="Other", metadata={"kind": "b"})

    found = account.searched(
        f"email:'{email}' AND -metadata['kind']:'b' AND name~'ante'", until=lambda data: len(data) == 1
    )

    assert [each.id for each in found] == [wanted.id]


@documented(f"{SEARCH}: clauses joined by OR")
def test_it_finds_what_satisfies_one_of_several_clauses(account: Account) -> None:
    first, second = account.email(), account.email()
    wanted = {account.new(email=first).id, account.new(email=second).id}

    found = account.searched(f"email:'{first}' OR email:'{second}'", until=lambda data: len(data) == 2)

    assert {each.id for each in found} == wanted


@documented(f"{SEARCH}: the null value")
def test_it_finds_what_has_no_such_metadata(account: Account) -> None:
    email = account.email()
    wanted = account.new(email=email)
    account.new(email=email, metadata={"mark": "x"})

    found = account.searched(f"email:'{email}' AND metadata['mark']:null", until=lambda data: len(data) == 1)

    assert [each.id for each in found] == [wanted.id]


@documented(f"{SEARCH}#data-freshness")
def test_it_forgets_deleted_customers(account: Account) -> None:
    email = account.email()
    customer = account.new(email=email)
    account.searched(f"email:'{email}'", until=lambda data: len(data) == 1)

    account.customers.delete(customer.id)

    assert account.searched(f"email:'{email}'", until=lambda data: data == []) == []


@documented(f"{SEARCH}#pagination")
def test_it_pages_through_results(account: Account) -> None:
    email = account.email()
    ids = {account.new(email=email).id for _ in range(3)}
    account.searched(f"email:'{email}'", until=lambda data: len(data) == 3)

    first = account.customers.search({"query": f"email:'{email}'", "limit": 2})
    second = account.customers.search({"query": f"email:'{email}'", "limit": 2, "page": first.next_page})

    assert first.object == "search_result"
    assert (first.has_more, second.has_more) == (True, False)
    assert {each.id for each in [*first.data, *second.data]} == ids


@documented(SEARCH)
@pytest.mark.parametrize(
    "query",
    [
        "",
        "email",
        "email:",
        "shoe_size:'7'",
        "email:'a' AND name:'b' OR name:'c'",
        "metadata['k']>'v'",
        "email:'a' AND",
    ],
)
def test_it_refuses_malformed_queries(account: Account, query: str) -> None:
    error = error_of(lambda: account.customers.search({"query": query}))

    assert error.http_status == 400
