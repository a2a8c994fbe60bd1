from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from django.db import connection
from django.http import QueryDict
from django.test.utils import CaptureQueriesContext

from customers.api.filters import customer_query
from customers.api.pages import page_of
from customers.models import Customer, SyncState
from customers.services import customer_update

pytestmark = pytest.mark.django_db

CUSTOMERS = "/api/v1/customers/"
NOON = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)


@pytest.fixture(autouse=True)
def two_integrations(settings: Any) -> None:
    settings.INTEGRATIONS = {"stripe": "x", "other": "y"}


def customers(*names: str | None) -> list[Customer]:
    """Customers created one minute after another from noon on."""
    return [
        Customer.objects.create(
            name=name,
            email=f"{number}@example.com",
            created_at=NOON + dt.timedelta(minutes=number),
            updated_at=NOON - dt.timedelta(minutes=number),
        )
        for number, name in enumerate(names)
    ]


def names(answer: Any) -> list[str | None]:
    assert answer.status_code == 200, answer.json()
    return [customer["name"] for customer in answer.json()["results"]]


def walk(api: Any, path: str, direction: str = "next") -> list[list[str | None]]:
    pages = []
    while path:
        answer = api.get(path)
        pages.append(names(answer))
        path = (answer.json()[direction] or "").removeprefix("http://testserver")
    return pages


def test_it_lists_the_newest_first(api: Any) -> None:
    customers("Ann", "Bob", "Cid")

    answer = api.get(CUSTOMERS).json()

    assert [customer["name"] for customer in answer["results"]] == ["Cid", "Bob", "Ann"]
    assert (answer["next"], answer["previous"]) == (None, None)


@pytest.mark.parametrize(("ordering", "expected"), [
    ("created_at", ["bob", None, "Ann", "Élan", "Cid"]),
    ("-created_at", ["Cid", "Élan", "Ann", None, "bob"]),
    ("updated_at", ["Cid", "Élan", "Ann", None, "bob"]),
    ("-updated_at", ["bob", None, "Ann", "Élan", "Cid"]),
    ("name", [None, "Ann", "bob", "Cid", "Élan"]),
    ("-name", ["Élan", "Cid", "bob", "Ann", None]),
])  # fmt: skip
def test_it_walks_each_ordering_page_by_page_and_back(api: Any, ordering: str, expected: list[str | None]) -> None:
    customers("bob", None, "Ann", "Élan", "Cid")

    pages = walk(api, f"{CUSTOMERS}?ordering={ordering}&page_size=2")
    last = api.get(f"{CUSTOMERS}?ordering={ordering}&page_size=4").json()["next"].removeprefix("http://testserver")
    back = walk(api, last.replace("page_size=4", "page_size=2"), "previous")

    assert pages == [expected[:2], expected[2:4], expected[4:]]
    assert back == [expected[4:], expected[2:4], expected[:2]]


@pytest.mark.parametrize("ordering", ["created_at", "name"])
def test_it_walks_rows_that_tie(api: Any, ordering: str) -> None:
    for _ in range(7):
        Customer.objects.create(name="Same", created_at=NOON)

    seen = []
    path = f"{CUSTOMERS}?ordering={ordering}&page_size=2"
    while path:
        answer = api.get(path).json()
        seen += [customer["id"] for customer in answer["results"]]
        path = (answer["next"] or "").removeprefix("http://testserver")

    assert seen == [str(pk) for pk in Customer.objects.order_by("pk").values_list("pk", flat=True)]


def test_it_neither_repeats_nor_skips_a_row_while_others_come_and_go(api: Any) -> None:
    rows = customers("A", "B", "C", "D", "E", "F")
    first = api.get(f"{CUSTOMERS}?page_size=2").json()

    Customer.objects.create(name="New")
    Customer.objects.create(name="Long ago", created_at=NOON - dt.timedelta(days=1))
    customer_update(customer_id=rows[1].pk, changes={"name": "B2"})
    api.delete(f"{CUSTOMERS}{rows[5].pk}/")
    rest = walk(api, first["next"].removeprefix("http://testserver"))

    assert [customer["name"] for customer in first["results"]] == ["F", "E"]
    assert [name for page in rest for name in page] == ["D", "C", "B2", "A", "Long ago"]


def test_it_keeps_filters_in_its_links(api: Any) -> None:
    customers("Ann", "Annika", "Bob", "Anna")

    pages = walk(api, f"{CUSTOMERS}?name=ann&page_size=1&ordering=name")

    assert pages == [["Ann"], ["Anna"], ["Annika"]]


def test_it_refuses_a_cursor_of_another_ordering(api: Any) -> None:
    customers("Ann", "Bob")
    link = api.get(f"{CUSTOMERS}?page_size=1").json()["next"].removeprefix("http://testserver")

    answer = api.get(f"{link}&ordering=name")

    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (400, "invalid_cursor")


@pytest.mark.parametrize(("query", "expected"), [
    ("email=1@EXAMPLE.com", ["Bob"]),
    ("email=1@example", []),
    ("email=%251@example.com", []),
    ("name=B", ["bo%b", "Bob"]),
    ("name=bob", ["Bob"]),
    ("name=bo%25", ["bo%b"]),
    ("name=o", []),
    ("created_after=2026-03-01T12:02:00Z", ["bo%b", "Cid"]),
    ("created_before=2026-03-01T12:02:00Z", ["Bob", "Ann"]),
    ("created_after=2026-03-01T13:01:00%2B01:00&created_before=2026-03-01T12:03:00", ["Cid", "Bob"]),
    ("updated_after=2026-03-01T11:59:00Z", ["Bob", "Ann"]),
    ("updated_before=2026-03-01T11:58:00Z", ["bo%b"]),
    ("created_before=0905-08-30T16:17:43-20:56", []),
    ("name=&email=", ["bo%b", "Cid", "Bob", "Ann"]),
])  # fmt: skip
def test_it_filters(api: Any, query: str, expected: list[str]) -> None:
    customers("Ann", "Bob", "Cid", "bo%b")

    assert names(api.get(f"{CUSTOMERS}?{query}")) == expected


def test_it_filters_by_what_integrations_say(api: Any) -> None:
    ann, bob, _ = customers("Ann", "Bob", "Cid")
    for customer, integration, status in [
        (ann, "stripe", "failed"),
        (ann, "other", "in_sync"),
        (bob, "other", "failed"),
    ]:
        SyncState.objects.create(customer=customer, integration=integration, livemode=False, status=status)

    assert names(api.get(f"{CUSTOMERS}?sync_status=failed")) == ["Bob", "Ann"]
    assert names(api.get(f"{CUSTOMERS}?integration=stripe")) == ["Ann"]
    assert names(api.get(f"{CUSTOMERS}?sync_status=failed&integration=other")) == ["Bob"]
    assert names(api.get(f"{CUSTOMERS}?sync_status=in_sync&integration=stripe")) == []


def test_it_asks_the_database_as_often_for_many_customers_as_for_one(api: Any) -> None:
    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            api.get(CUSTOMERS)
        return len(captured)

    api.get(CUSTOMERS)  # The first use of a key is written down.
    rows = customers(*"ABCDEFGHIJ")
    for customer in rows:
        SyncState.objects.create(customer=customer, integration="stripe", livemode=False)
    Customer.objects.exclude(pk=rows[0].pk).update(deleted_at=NOON)
    few = queries()
    Customer.objects.update(deleted_at=None)

    assert queries() == few


@pytest.mark.feature("C8")
def test_it_answers_each_query_from_an_index(many: None) -> None:
    plans = {query: plan_of(query) for query in SERVED_BY}

    without_index = [query for query, plan in plans.items() if SERVED_BY[query] not in plan]
    reads_all = [query for query, plan in plans.items() if "Seq Scan on customers_customer" in plan]
    assert (without_index, reads_all) == ([], [])


SERVED_BY = {
    "": "customer_by_created",
    "ordering=updated_at": "customer_by_updated",
    "ordering=name": "customer_by_name",
    "created_after=2026-03-01T12:00:00Z&created_before=2026-03-01T12:00:05Z": "customer_by_created",
    "updated_after=2026-03-01T12:00:00Z&updated_before=2026-03-01T12:00:05Z": "customer_by_updated",
    "name=customer 1234": "customer_by_name",
    "email=C123@example.com": "customers_customer_email_active_uniq",
    "email=C123@example.com&include_deleted=true": "customer_deleted_email",
    "sync_status=failed": "syncstate_by_status",
    "sync_status=in_sync": "customer_by_created",
}


def plan_of(query: str) -> str:
    asked = customer_query(QueryDict(query), may_see_deleted=lambda: None)
    with CaptureQueriesContext(connection) as captured:
        page_of(asked.customers, ordering=asked.ordering, cursor=None, size=50)
    [select] = [row["sql"] for row in captured.captured_queries]
    with connection.cursor() as cursor:
        cursor.execute("EXPLAIN " + select.replace("%", "%%"))
        return "\n".join(row[0] for row in cursor.fetchall())


@pytest.fixture
def many(db: None) -> None:
    """20,000 customers, one in ten deleted, all but twenty in sync; enough for the planner to prefer indexes."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO customers_customer
                   (id, name, email, address, metadata, version, created_at, updated_at, deleted_at)
            SELECT gen_random_uuid(), 'Customer ' || n, 'c' || n || '@example.com', '{}', '{}', 1,
                   '2026-03-01 12:00Z'::timestamptz + n * interval '1 second',
                   '2026-03-01 12:00Z'::timestamptz + n * interval '1 second',
                   CASE WHEN n % 10 = 0 THEN now() END
              FROM generate_series(1, 20000) n;
            INSERT INTO customers_syncstate (customer_id, integration, account, livemode, status)
            SELECT id, 'stripe', '', false, CASE WHEN row_number() OVER () <= 20 THEN 'failed' ELSE 'in_sync' END
              FROM customers_customer;
            ANALYZE customers_customer, customers_syncstate
            """
        )


def test_it_filters_by_an_email_with_capitals_beyond_ascii(api: Any) -> None:
    created = api.post(CUSTOMERS, {"email": "ÜBER@example.com"})

    answer = api.get(f"{CUSTOMERS}?email=%C3%9CBER@example.com")

    assert [row["id"] for row in answer.json()["results"]] == [created.json()["id"]]
