from __future__ import annotations

import csv
import gc
import io
import json
import weakref
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.db.models.signals import post_init

from customers.exporting import lists
from customers.exporting.lists import cell_safe, customers_csv
from customers.models import Conflict, Customer, SyncState, Webhook
from customers.services import customer_create, customer_delete, customer_update
from operations.models import AuditEntry
from tests.customers.conftest import Api
from tests.customers.test_console import staff

pytestmark = [pytest.mark.feature("H8"), pytest.mark.django_db]

CSV = "/api/v1/customers/export.csv"

# Serves the tests of size.
FILL_SQL = """
INSERT INTO customers_customer (id, name, email, address, metadata, version, created_at, updated_at)
SELECT gen_random_uuid(), 'Person ' || n, 'p' || n || '@example.com', '{}', '{"plan": "gold"}', 1,
       now() + n * interval '1 second', now() FROM generate_series(1, %s) n
"""


@pytest.fixture
def exporter(db: None) -> Api:
    return Api("customers:export", "operations:read")


def lines(answer: Any) -> list[dict[str, str]]:
    assert answer.status_code == 200, answer.content
    return list(csv.DictReader(io.StringIO(b"".join(answer.streaming_content).decode())))


def person() -> Customer:
    customer = customer_create(name="Ada", email="ada@example.com", phone="+39 1", metadata={"plan": "gold"})
    customer_update(customer_id=customer.pk, changes={"name": "Ada Lovelace"})
    state = SyncState.objects.create(
        customer=customer, integration="stripe", livemode=False, remote_id="cus_1", base={"name": "Ada"}
    )
    Conflict.objects.create(state=state, kind="field", field="name", base="Ada", ours="Ada Lovelace", theirs="A.")
    Webhook.objects.create(
        integration="stripe", event_id="evt_1", type="customer.updated", livemode=False, remote_id="cus_1", payload={}
    )
    return customer


def test_it_gives_all_that_is_kept_of_one_customer(exporter: Api) -> None:
    customer = person()

    answer = exporter.get(f"/api/v1/customers/{customer.pk}/export/")
    again = exporter.get(f"/customers/{customer.pk}/export").json()

    document = answer.json()
    assert answer["Cache-Control"] == "private, no-store"
    assert (document["customer"]["name"], document["customer"]["phone"]) == ("Ada Lovelace", "+39 1")
    assert [event["payload"]["name"] for event in document["events"]] == ["Ada", "Ada Lovelace"]
    (state,) = document["integrations"]
    assert (state["remote_id"], state["agreed"]) == ("cus_1", {"name": "Ada"})
    assert [one["theirs"] for one in state["conflicts"]] == ["A."]
    assert [one["type"] for one in state["webhooks"]] == ["customer.updated"]
    assert [one["action"] for one in again["audit"]] == ["customer.exported"]


def test_it_gives_one_that_was_deleted_and_none_that_never_was(exporter: Api) -> None:
    customer = person()
    customer_delete(customer_id=customer.pk)

    answer = exporter.get(f"/api/v1/customers/{customer.pk}/export/")
    missing = exporter.get(f"/api/v1/customers/{uuid4()}/export/")

    assert answer.json()["customer"]["deleted_at"] is not None
    assert (missing.status_code, missing.json()["code"]) == (404, "not_found")


@pytest.mark.feature("A16")
def test_it_is_closed_to_those_without_the_right(api: Api) -> None:
    customer = person()
    urls = [CSV, f"/api/v1/customers/{customer.pk}/export/"]
    operator, admin = staff("operator"), staff("admin")

    assert [api.get(url).status_code for url in urls] == [403, 403]
    assert [operator.get(url).status_code for url in urls] == [403, 403]
    assert [admin.get(url).status_code for url in urls] == [200, 200]


def test_it_gives_the_list_as_csv(exporter: Api) -> None:
    ada = person()
    gone = customer_create(name="Gone")
    customer_delete(customer_id=gone.pk)
    customer_create(name='Zoë, "the\nfirst"', email="zoe@example.com")

    answer = exporter.get(CSV, Accept="text/csv")
    found = lines(answer)
    narrowed = lines(exporter.get(f"{CSV}?name=ada"))
    every = lines(exporter.get(f"{CSV}?include_deleted=true&ordering=created_at"))

    assert answer["Content-Type"] == "text/csv; charset=utf-8"
    assert answer["Content-Disposition"] == 'attachment; filename="customers.csv"'
    assert [row["name"] for row in found] == ['Zoë, "the\nfirst"', "Ada Lovelace"]
    assert found[1]["id"] == str(ada.pk)
    assert (found[1]["metadata"], found[1]["stripe_status"]) == ('{"plan":"gold"}', "pending")
    assert found[1]["stripe_remote_id"] == "cus_1"
    assert [row["name"] for row in narrowed] == ["Ada Lovelace"]
    assert [row["name"] for row in every] == ["Ada Lovelace", "Gone", 'Zoë, "the\nfirst"']
    entry = AuditEntry.objects.filter(action="customers.exported").latest("pk")
    assert entry.detail == {"filters": ["include_deleted", "ordering"]}


@pytest.mark.parametrize("query", ["page_size=5", "cursor=x", "nonsense=1", "name=a&name=b", "created_after=never"])
def test_it_refuses_parameters_before_the_first_line(exporter: Api, query: str) -> None:
    answer = exporter.get(f"{CSV}?{query}")

    assert (answer.status_code, answer["Content-Type"]) == (400, "application/problem+json")
    assert not AuditEntry.objects.filter(action="customers.exported").exists()


def test_it_asks_for_the_right_to_see_deleted_ones() -> None:
    answer = Api("customers:export").get(f"{CSV}?include_deleted=true")

    assert answer.status_code == 403


@pytest.mark.feature("A16")
@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20"])
def test_it_lets_no_cell_begin_a_formula(exporter: Api, start: str) -> None:
    text = f'{start}HYPERLINK("http://evil.example","x")'
    Customer.objects.create(name=text, phone="+39 1", metadata={"k": text})

    (row,) = lines(exporter.get(CSV))

    assert row["name"] == f"'{text}"
    assert row["phone"] == "'+39 1"
    assert all(cell_safe(cell) == cell or cell.startswith("'") for cell in row.values())


def test_it_takes_no_more_memory_for_more_customers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted in customers and in characters: bytes of a process are those of its other threads and caches too."""
    monkeypatch.setattr(lists, "PAGE", 100)
    with connection.cursor() as cursor:
        cursor.execute(FILL_SQL, [1_200])
    alive: set[int] = set()
    most = 0

    def count(sender: object, instance: Customer, **_: object) -> None:
        nonlocal most
        alive.add(id(instance))
        weakref.finalize(instance, alive.discard, id(instance))
        most = max(most, len(alive))

    gc.disable()  # What only the collector finds counts as kept.
    post_init.connect(count, sender=Customer)
    try:
        lines, longest = 0, 0
        for page in customers_csv(Customer.objects.all(), ordering="created_at"):
            lines += page.count("\n")
            longest = max(longest, page.count("\n"))
    finally:
        post_init.disconnect(count, sender=Customer)
        gc.enable()

    assert lines == 1_201
    # The page before is let go when the next one was read; one more than a page is read to know whether that was all.
    assert most <= 2 * 101
    assert longest <= 101


def test_it_exports_by_command(tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    customer = person()
    target = tmp_path / "ada.json"

    call_command("customer_export", str(customer.pk), "--output", str(target))
    call_command("customer_export", "--list")

    assert json.loads(target.read_bytes())["customer"]["name"] == "Ada Lovelace"
    assert target.stat().st_mode & 0o777 == 0o600
    printed = capsysbinary.readouterr().out.decode()
    assert [row["name"] for row in csv.DictReader(io.StringIO(printed))] == ["Ada Lovelace"]
    assert list(AuditEntry.objects.order_by("pk").values_list("action", flat=True)) == [
        "customer.exported",
        "customers.exported",
    ]
    with pytest.raises(CommandError, match="File exists"):
        call_command("customer_export", str(customer.pk), "--output", str(target))
    with pytest.raises(CommandError, match="no such customer"):
        call_command("customer_export", str(uuid4()))


@pytest.mark.feature("F3")
def test_it_exports_in_the_console() -> None:
    customer, other = person(), customer_create(name="Bob")
    admin = staff("admin")
    form = {"action": "export_data", "_selected_action": [str(customer.pk)]}

    one = admin.post("/admin/customers/customer/", form)
    both = admin.post("/admin/customers/customer/", {**form, "_selected_action": [str(customer.pk), str(other.pk)]})
    refused = staff("operator").post("/admin/customers/customer/", form)

    assert one["Content-Disposition"] == f'attachment; filename="customer-{customer.pk}.json"'
    assert one.json()["customer"]["name"] == "Ada Lovelace"
    assert {each["customer"]["name"] for each in both.json()} == {"Ada Lovelace", "Bob"}
    assert refused["Content-Type"].startswith("text/html")
    entries = AuditEntry.objects.filter(action="customer.exported")
    assert {entry.actor for entry in entries} == {"user:admin-person"}
