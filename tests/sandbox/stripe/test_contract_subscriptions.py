from __future__ import annotations

from tests.sandbox.stripe.contract import Account, documented, error_of

SUBSCRIPTIONS = "docs.stripe.com/api/subscriptions"


@documented(f"{SUBSCRIPTIONS}/list")
def test_it_lists_the_subscriptions_of_a_customer(account: Account) -> None:
    customer, other = account.new(), account.new()
    subscription = account.subscribe(customer.id)

    listed = account.client.v1.subscriptions.list({"customer": customer.id})

    assert [each.id for each in listed.data] == [subscription.id]
    assert listed.data[0].status == "trialing"
    assert account.client.v1.subscriptions.list({"customer": other.id}).data == []


@documented("docs.stripe.com/api/customers/delete: immediately cancels active subscriptions")
def test_it_cancels_subscriptions_when_their_customer_is_deleted(account: Account) -> None:
    customer = account.new()
    subscription = account.subscribe(customer.id)

    account.customers.delete(customer.id)

    assert account.client.v1.subscriptions.retrieve(subscription.id).status == "canceled"
    assert account.events("customer.subscription.deleted", subscription.id)


@documented(f"{SUBSCRIPTIONS}/cancel")
def test_it_leaves_canceled_subscriptions_out_unless_asked(account: Account) -> None:
    customer = account.new()
    subscription = account.subscribe(customer.id)

    canceled = account.client.v1.subscriptions.cancel(subscription.id)

    listed = account.client.v1.subscriptions.list({"customer": customer.id})
    everything = account.client.v1.subscriptions.list({"customer": customer.id, "status": "all"})
    assert canceled.status == "canceled"
    assert listed.data == []
    assert [each.id for each in everything.data] == [subscription.id]


@documented("docs.stripe.com/error-codes#resource-missing")
def test_it_refuses_to_subscribe_a_deleted_customer(account: Account) -> None:
    customer = account.new()
    price = account.price()
    account.customers.delete(customer.id)

    error = error_of(
        lambda: account.client.v1.subscriptions.create({"customer": customer.id, "items": [{"price": price}]})
    )

    assert (error.http_status, error.code, error.param) == (400, "resource_missing", "customer")
