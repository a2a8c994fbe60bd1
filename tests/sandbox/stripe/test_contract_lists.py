from __future__ import annotations

from tests.sandbox.stripe.contract import Account, documented, error_of, observed

LIST = "docs.stripe.com/api/customers/list"


@documented(f"{LIST}: sorted by creation date, the most recent first")
def test_it_lists_the_newest_first_and_reads_its_own_writes(account: Account) -> None:
    email = account.email()
    ids = [account.new(email=email).id for _ in range(3)]

    listed = account.customers.list({"email": email})

    assert [customer.id for customer in listed.data] == ids[::-1]
    assert listed.object == "list"
    assert listed.url == "/v1/customers"
    assert listed.has_more is False


@documented("docs.stripe.com/api/pagination")
def test_it_pages_with_starting_after(account: Account) -> None:
    email = account.email()
    ids = [account.new(email=email).id for _ in range(3)]

    first = account.customers.list({"email": email, "limit": 2})
    second = account.customers.list({"email": email, "limit": 2, "starting_after": first.data[-1].id})

    assert ([each.id for each in first.data], first.has_more) == ([ids[2], ids[1]], True)
    assert ([each.id for each in second.data], second.has_more) == ([ids[0]], False)


@documented("docs.stripe.com/api/pagination")
def test_it_pages_backwards_with_ending_before(account: Account) -> None:
    email = account.email()
    ids = [account.new(email=email).id for _ in range(4)]

    page = account.customers.list({"email": email, "limit": 2, "ending_before": ids[0]})

    assert ([each.id for each in page.data], page.has_more) == ([ids[2], ids[1]], True)


@documented("docs.stripe.com/api/pagination/auto")
def test_it_serves_auto_paging(account: Account) -> None:
    email = account.email()
    ids = [account.new(email=email).id for _ in range(5)]

    found = [each.id for each in account.customers.list({"email": email, "limit": 2}).auto_paging_iter()]

    assert found == ids[::-1]


@documented(LIST)
def test_it_filters_by_the_moment_of_creation(account: Account) -> None:
    email = account.email()
    customer = account.new(email=email)

    def listed(**created: int) -> list[str]:
        return [each.id for each in account.customers.list({"email": email, "created": created}).data]

    assert listed(gte=customer.created, lte=customer.created) == [customer.id]
    assert listed(gt=customer.created) == []
    assert listed(lt=customer.created) == []


@documented(f"{LIST}: a case-sensitive filter on the email field")
def test_it_filters_by_email_in_its_case(account: Account) -> None:
    email = account.email()
    account.new(email=email)

    assert account.customers.list({"email": email.upper()}).data == []


@observed("deleted customers do not appear in lists")
def test_it_leaves_deleted_customers_out(account: Account) -> None:
    email = account.email()
    kept, gone = account.new(email=email), account.new(email=email)

    account.customers.delete(gone.id)

    assert [each.id for each in account.customers.list({"email": email}).data] == [kept.id]


@documented("docs.stripe.com/error-codes#resource-missing")
def test_it_refuses_a_cursor_that_names_nothing(account: Account) -> None:
    error = error_of(lambda: account.customers.list({"starting_after": "cus_nobody"}))

    assert (error.http_status, error.code, error.param) == (400, "resource_missing", "starting_after")


@documented("docs.stripe.com/api/pagination: the cursors exclude each other")
def test_it_refuses_both_cursors_at_once(account: Account) -> None:
    customer = account.new()

    error = error_of(lambda: account.customers.list({"starting_after": customer.id, "ending_before": customer.id}))

    assert error.http_status == 400
