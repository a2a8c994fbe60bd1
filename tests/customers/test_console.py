from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from customers.models import Customer, ImportRun, SyncState
from customers.services import customer_create
from operations.models import AuditEntry
from operations.pagination import COUNTED_AT_MOST
from tests.customers.published import published

pytestmark = [pytest.mark.feature("F3"), pytest.mark.django_db]

LIST = "/admin/customers/customer/"


def staff(role: str) -> Client:
    user = User.objects.create_user(f"{role}-person", password=None, is_staff=True)
    user.groups.add(Group.objects.get(name=role))
    client = Client()
    client.force_login(user)
    return client


def found(client: Client, query: str) -> set[str]:
    answer = client.get(f"{LIST}?{query}")
    assert answer.status_code == 200
    return {str(customer) for customer in answer.context["cl"].result_list}


def test_it_shows_customers_with_what_integrations_say() -> None:
    customer = customer_create(name="<b>Ann</b>", email="ann@example.com", metadata={"plan": "<i>gold</i>"})
    SyncState.objects.create(
        customer=customer, integration="stripe", livemode=False, status="failed", remote_id="cus_1"
    )
    client = staff("viewer")

    listed = client.get(LIST).content.decode()
    shown = client.get(f"{LIST}{customer.pk}/change/").content.decode()

    for page in (listed, shown):
        assert "ann@example.com" in page
        assert "cus_1" in page
        assert "Failed" in page
        assert "&lt;b&gt;Ann" in page
        assert "<b>Ann" not in page
    assert "&lt;i&gt;gold" in shown


def test_it_finds_by_id_email_remote_id_and_beginning_of_a_name() -> None:
    ann = customer_create(name="Ann", email="Ann@example.com")
    customer_create(name="Annika", email="annika@example.com")
    SyncState.objects.create(customer=ann, integration="stripe", livemode=False, remote_id="cus_1")
    client = staff("viewer")

    assert found(client, f"q={ann.pk}") == {"Ann"}
    assert found(client, "q=ANN@example.com") == {"Ann"}
    assert found(client, "q=cus_1") == {"Ann"}
    assert found(client, "q=ann") == {"Ann", "Annika"}
    assert found(client, "q=nik") == set()


def test_it_filters_by_presence_and_sync_status() -> None:
    ann = customer_create(name="Ann")
    Customer.objects.create(name="Gone", deleted_at=timezone.now())
    SyncState.objects.create(customer=ann, integration="stripe", livemode=False, status="conflict")
    client = staff("viewer")

    assert found(client, "presence=active") == {"Ann"}
    assert found(client, "presence=deleted") == {"Gone"}
    assert found(client, "sync_status=conflict") == {"Ann"}
    assert found(client, "sync_status=failed") == set()


@pytest.mark.parametrize("role", ["viewer", "operator", "admin"])
def test_it_lets_nobody_add_or_edit(role: str) -> None:
    customer = customer_create(name="Ann")
    client = staff(role)

    answers = [
        client.get(f"{LIST}add/"),
        client.post(f"{LIST}add/", {"name": "New"}),
        client.post(f"{LIST}{customer.pk}/change/", {"name": "Eve"}),
        client.post(f"{LIST}{customer.pk}/delete/", {"post": "yes"}),
    ]

    assert [answer.status_code for answer in answers] == [403] * 4
    assert list(Customer.objects.values_list("name", "deleted_at")) == [("Ann", None)]


@pytest.mark.feature("C16")
def test_it_deletes_for_good_after_a_question_and_writes_down_who_did() -> None:
    ann, bob = customer_create(name="Ann"), customer_create(name="Bob")
    form = {"action": "delete_for_good", "_selected_action": [str(ann.pk)]}
    client = staff("operator")

    asked = client.post(LIST, form)
    untouched = Customer.objects.active().count()
    done = client.post(LIST, {**form, "confirmed": "yes"}, follow=True)

    assert "Delete 1 customer for good?" in asked.content.decode()
    assert untouched == 2
    assert "Deleted 1 of 1 customer." in done.content.decode()
    assert [row.pk for row in Customer.objects.active()] == [bob.pk]
    event = published()[-1]
    assert (event.type, event.aggregate_id, event.origin) == ("customer.deleted", str(ann.pk), "console")
    entry = AuditEntry.objects.latest("pk")
    assert (entry.actor, entry.action, entry.target) == (
        "user:operator-person",
        "customer.deleted",
        f"customer:{ann.pk}",
    )


def test_it_does_not_let_a_viewer_delete() -> None:
    ann = customer_create(name="Ann")

    form = {"action": "delete_for_good", "_selected_action": [str(ann.pk)], "confirmed": "yes"}
    staff("viewer").post(LIST, form)

    assert Customer.objects.active().count() == 1


def test_it_deletes_a_bounded_number_at_once() -> None:
    Customer.objects.bulk_create(Customer(name=f"N{n}") for n in range(101))

    form = {"action": "delete_for_good", "select_across": "1", "_selected_action": ["x"], "confirmed": "yes"}
    answer = staff("admin").post(LIST, form, follow=True)

    assert "At most 100 customers at once." in answer.content.decode()
    assert Customer.objects.active().count() == 101


def test_it_shows_imports() -> None:
    ImportRun.objects.create(content_sha256="a" * 64, format="csv", file_name="big.csv", customers_created=7)

    page = staff("viewer").get("/admin/customers/importrun/").content.decode()

    assert "big.csv" in page
    assert "Unfinished" in page
    assert "Imported files" in page


@pytest.mark.parametrize(
    ("is_finished", "rejected", "advice"),
    [
        (False, 0, "<code>manage.py import_customers big.csv</code>"),
        (True, 0, "reach the integrations after what is more urgent."),
        (True, 2, "big.csv.rejected.ndjson names what was rejected"),
    ],
)
def test_it_says_what_to_do_after_an_import(is_finished: bool, rejected: int, advice: str) -> None:
    run = ImportRun.objects.create(
        content_sha256="a" * 64,
        format="csv",
        file_name="big.csv",
        records_rejected=rejected,
        finished_at=timezone.now() if is_finished else None,
    )

    page = staff("viewer").get(reverse("admin:customers_importrun_change", args=[run.pk])).content.decode()

    assert advice in page
    assert ("rejected.ndjson" in page) == bool(rejected)


def test_it_opens_a_long_list_without_reading_all_of_it() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO customers_customer (id, name, address, metadata, version, created_at, updated_at)
            SELECT gen_random_uuid(), 'Customer ' || n, '{}', '{}', 1, now() - n * interval '1 second', now()
              FROM generate_series(1, 15000) n;
            ANALYZE customers_customer
            """
        )
    client = staff("viewer")

    with CaptureQueriesContext(connection) as captured:
        answer: Any = client.get(LIST)

    assert len(answer.context["cl"].result_list) == 50
    assert answer.context["cl"].paginator.count >= 10_000
    reads = [row["sql"] for row in captured.captured_queries if 'FROM "customers_customer"' in row["sql"]]
    # The count that stops at a bound, and the page itself.
    assert [f"LIMIT {COUNTED_AT_MOST + 1}" in sql for sql in reads] == [True, False]
    with connection.cursor() as cursor:
        cursor.execute("EXPLAIN " + reads[1])
        plan = "\n".join(row[0] for row in cursor.fetchall())
    assert "customer_by_created" in plan


def test_it_filters_customers_by_every_status() -> None:
    for status in SyncState.Status.values:
        customer = Customer.objects.create(name=f"Is {status}")
        SyncState.objects.create(customer=customer, integration="stripe", livemode=False, status=status)
    client = staff("viewer")

    for status in SyncState.Status.values:
        for more in ({}, {"presence": "active"}, {"q": "Is"}, {"o": "1"}):
            page = client.get(LIST, {"sync_status": status, **more})
            assert [row.name for row in page.context["cl"].result_list] == [f"Is {status}"]
    assert list(client.get(LIST, {"sync_status": "nonsense"}).context["cl"].result_list) == []


def test_it_lists_a_customer_once_that_failed_in_two_integrations() -> None:
    for name in ("Ann", "Bob"):
        customer = Customer.objects.create(name=name)
        for integration in ("stripe", "other"):
            SyncState.objects.create(customer=customer, integration=integration, livemode=False, status="failed")

    page = staff("viewer").get(LIST, {"sync_status": "failed"})

    assert [row.name for row in page.context["cl"].result_list] == ["Bob", "Ann"]
    assert page.context["cl"].result_count == 2


def test_it_links_a_customer_to_its_sync_states() -> None:
    customer = Customer.objects.create(name="Ann")
    state = SyncState.objects.create(customer=customer, integration="stripe", livemode=False, remote_id="cus_1")

    page = staff("viewer").get(LIST).content.decode()

    assert f'<a href="/admin/customers/syncstate/{state.pk}/change/">cus_1</a>' in page


@pytest.mark.feature("F3")
def test_its_page_leads_to_all_about_a_customer() -> None:
    customer = customer_create(name="Ann")
    SyncState.objects.create(customer=customer, integration="stripe", livemode=False, remote_id="cus_1")
    client = staff("operator")

    shown = client.get(f"{LIST}{customer.pk}/change/").content.decode()

    for address in (
        f"/admin/outbox/storedevent/?q=customer%3A{customer.pk}",
        f"/admin/customers/syncstate/?q={customer.pk}",
        f"/admin/customers/conflict/?q={customer.pk}",
        f"/admin/customers/drift/?q={customer.pk}",
        "/admin/customers/webhook/?q=cus_1",
    ):
        assert f'href="{address}"' in shown
        assert client.get(address).status_code == 200
    assert f'href="{LIST}{customer.pk}/change/"' in client.get("/admin/outbox/storedevent/").content.decode()


@pytest.mark.feature("F3")
def test_its_page_asks_before_it_deletes_for_good() -> None:
    customer = customer_create(name="Ann")
    client = staff("operator")
    data = {"action": "delete_for_good", "_selected_action": [str(customer.pk)], "from_page": "1"}

    shown = client.get(f"{LIST}{customer.pk}/change/").content.decode()
    asked = client.post(LIST, data)
    done = client.post(LIST, {**data, "confirmed": "yes"}, follow=True).content.decode()
    after = client.get(f"{LIST}{customer.pk}/change/").content.decode()

    assert "Delete for good, also in integrations…" in shown
    assert 'class="danger" value="Delete for good"' in asked.content.decode()
    assert "Deleted 1 of 1 customer." in done
    assert "Delete for good" not in after
