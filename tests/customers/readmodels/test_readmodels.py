from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import pytest
from django.db import connection, transaction
from django.utils import timezone

from customers.events import DELETED as CUSTOMER_DELETED
from customers.events import ERASED as CUSTOMER_ERASED
from customers.events import UPDATED, customer_event
from customers.models import ActivityDay, DirectoryEntry
from customers.readmodels.directory import CustomerDirectory
from customers.services import customer_create, customer_delete, customer_update
from outbox.models import StoredEvent
from outbox.publishing import publish
from projections.models import Build, Failure
from projections.runner import projections_run_once
from projections.verifying import projection_verify
from tests.customers.conftest import Api
from tests.customers.races import in_threads
from tests.projections.conftest import deposit, publish_deposits

pytestmark = [pytest.mark.feature("H3")]

DIRECTORY = "/api/v1/customers/directory"
ACTIVITY = "/api/v1/customers/activity"


def names(answer: Any) -> list[str]:
    assert answer.status_code == 200, answer.content
    return [row["name"] for row in answer.json()["results"]]


def test_it_shows_what_customers_are_now(api: Api) -> None:
    ada = customer_create(name="Ada", email="ada@example.com", phone="+49 30 1")
    bob = customer_create(name="Bob", email="bob@example.com")
    projections_run_once()
    customer_update(customer_id=ada.pk, changes={"name": "Ada Lovelace"}, origin="stripe")
    customer_delete(customer_id=bob.pk)
    projections_run_once()

    answer = api.get(DIRECTORY).json()

    assert answer["more"] is False
    (row,) = answer["results"]
    updated = row.pop("updated_at")
    assert updated.endswith("Z")
    assert row == {
        "customer_id": str(ada.pk),
        "name": "Ada Lovelace",
        "email": "ada@example.com",
        "phone": "+49 30 1",
        "version": 2,
        "origin": "stripe",
    }


@pytest.mark.parametrize(
    ("q", "found"),
    [
        ("ada", ["Ada King", "Ada Lovelace"]),
        ("LOVE ad", ["Ada Lovelace"]),
        ("example.com", ["Ada King", "Ada Lovelace", "Örn Ægir"]),
        ("king@example", ["Ada King"]),
        ("örn", ["Örn Ægir"]),
        ("ÆG", ["Örn Ægir"]),
        ("555", ["Örn Ægir"]),
        ("lace", []),
        ("ada | king", ["Ada King"]),
        ("ada' & !king:*", ["Ada King"]),
        ("zzz", []),
        ("", ["Örn Ægir", "Ada King", "Ada Lovelace"]),
        ("!&|", ["Örn Ægir", "Ada King", "Ada Lovelace"]),
    ],
)
def test_it_finds_customers_by_the_beginnings_of_words(api: Api, q: str, found: list[str]) -> None:
    customer_create(name="Ada Lovelace", email="ada@example.com")
    customer_create(name="Ada King", email="king_a@example.com")
    customer_create(name="Örn Ægir", email="oern@example.com", phone="+354 555 1234")
    projections_run_once()

    assert names(api.get(f"{DIRECTORY}/?q={quote(q)}")) == found


@pytest.mark.feature("H8")
@pytest.mark.parametrize("end", [CUSTOMER_DELETED, CUSTOMER_ERASED])
@pytest.mark.parametrize("at_once", [True, False], ids=["in one batch", "in a later batch"])
def test_nothing_comes_back_after_a_deletion(api: Api, end: str, at_once: bool) -> None:
    ada, eve = customer_create(name="Ada"), customer_create(name="Eve")
    projections_run_once()
    late = customer_event(ada, type=UPDATED, changed=["name"], origin="api", priority="bulk")
    with transaction.atomic():
        publish(customer_event(ada, type=end, changed=[], origin="api", priority="bulk"))
    if not at_once:
        projections_run_once()

    for changed in (late, replace(late, payload={**late.payload, "name": "Ada again"})):
        with transaction.atomic():
            publish(changed)
    customer_update(customer_id=eve.pk, changes={"name": "Eve Moore"})
    projections_run_once()

    assert names(api.get(DIRECTORY)) == ["Eve Moore"]
    assert projection_verify(name="customer_directory").count == 0
    assert not Failure.objects.exists()


def test_a_row_that_was_lost_comes_back_with_the_next_event(api: Api) -> None:
    ada = customer_create(name="Ada")
    projections_run_once()
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM customers_directory")
    customer_update(customer_id=ada.pk, changes={"name": "Ada King"})
    projections_run_once()

    assert names(api.get(DIRECTORY)) == ["Ada King"]


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ("?page_size=0", "page_size"),
        ("?page_size=x", "page_size"),
        ("?sort=name", "sort"),
        ("?q=a&q=b", "q"),
        ("?q=" + "a" * 201, "q"),
        ("?wait_for=abc", "wait_for"),
        ("?wait_for=-1", "wait_for"),
        ("?q=%00", "q"),
    ],
)
def test_it_refuses_what_it_does_not_understand(api: Api, query: str, parameter: str) -> None:
    answer = api.get(DIRECTORY + query)

    assert answer.status_code == 400
    assert answer["Content-Type"] == "application/problem+json"
    if answer.json()["errors"]:
        assert answer.json()["errors"][0]["parameter"] == parameter


def test_it_says_when_there_is_more(api: Api) -> None:
    for number in range(3):
        customer_create(name=f"Ada {number}")
    projections_run_once()

    answer = api.get(f"{DIRECTORY}?q=ada&page_size=2").json()

    assert [row["name"] for row in answer["results"]] == ["Ada 0", "Ada 1"]
    assert answer["more"] is True


def test_it_counts_what_happened_on_a_day(api: Api) -> None:
    customers = [customer_create(name=f"c{number}", origin="import") for number in range(3)]
    projections_run_once()
    customer_update(customer_id=customers[0].pk, changes={"name": "x"})
    customer_update(customer_id=customers[0].pk, changes={"name": "y"})
    customer_delete(customer_id=customers[1].pk)
    projections_run_once()

    answer = api.get(ACTIVITY).json()

    today = timezone.now().date().isoformat()
    assert answer["until"] == today
    assert answer["results"] == [
        {"day": today, "type": "customer.created", "origin": "import", "events": 3},
        {"day": today, "type": "customer.deleted", "origin": "api", "events": 1},
        {"day": today, "type": "customer.updated", "origin": "api", "events": 2},
    ]
    assert api.get(f"{ACTIVITY}/?since=2020-01-01&until=2020-01-31").json()["results"] == []


@pytest.mark.parametrize(
    "query",
    [
        "?since=tomorrow",
        "?since=2026-02-30",
        "?since=2026-01-02&until=2026-01-01",
        "?since=2020-01-01",
    ],
)
def test_it_refuses_ranges_that_are_none(api: Api, query: str) -> None:
    assert api.get(ACTIVITY + query).status_code == 400


@pytest.mark.parametrize("path", [DIRECTORY, ACTIVITY])
def test_it_is_closed_to_strangers(client: Any, path: str) -> None:
    assert client.get(path).status_code == 401
    assert Api("metrics:read").get(path).status_code == 403


@pytest.mark.parametrize("by", ["id", "uid"])
def test_a_client_reads_its_own_writes(api: Api, by: str) -> None:
    customer_create(name="Ada")
    event = StoredEvent.objects.values(by).get()[by]
    waiting = threading.Event()
    seen: list[list[str]] = []

    def read() -> None:
        waiting.set()
        seen.append(names(api.get(f"{DIRECTORY}?q=ada&wait_for={event}")))

    def run() -> None:
        assert waiting.wait(60)
        projections_run_once()

    errors = in_threads(read, run)

    assert errors == []
    assert seen == [["Ada"]]


def test_answers_to_changes_name_the_event_to_wait_for(api: Api) -> None:
    created = api.post("/api/v1/customers/", {"name": "Ada", "email": "ada@example.com"}, Idempotency_Key="once")
    address = f"/api/v1/customers/{created.json()['id']}"
    again = api.post("/api/v1/customers/", {"name": "Ada", "email": "ada@example.com"}, Idempotency_Key="once")
    changed = api.patch(address, {"name": "Ada King"})
    unchanged = api.patch(address, {"name": "Ada King"})
    read = api.get(address)
    projections_run_once()
    found = names(api.get(f"{DIRECTORY}?q=king&wait_for={changed['X-Event-Id']}"))
    deleted = api.delete(address)
    projections_run_once()

    written = [answer["X-Event-Id"] for answer in (created, changed, deleted)]
    assert written == [str(pk) for pk in StoredEvent.objects.order_by("id").values_list("id", flat=True)]
    assert again["X-Event-Id"] == created["X-Event-Id"]
    assert [answer.has_header("X-Event-Id") for answer in (unchanged, read)] == [False, False]
    assert found == ["Ada King"]
    assert names(api.get(f"{DIRECTORY}?wait_for={deleted['X-Event-Id']}")) == []


def test_it_says_that_an_event_cannot_take_effect(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    ada = customer_create(name="Ada")
    customer_update(customer_id=ada.pk, changes={"name": "Eve"})
    ids = list(StoredEvent.objects.order_by("id").values_list("id", flat=True))
    monkeypatch.setattr(CustomerDirectory, "types", {"customer.updated": 1})
    projections_run_once()

    answers = [api.get(f"{DIRECTORY}?wait_for={event}") for event in (*ids, ids[-1] + 1)]

    assert [answer.status_code for answer in answers] == [409, 409, 400]
    assert [answer.json()["code"] for answer in answers] == [
        "read_model_blocked",
        "read_model_blocked",
        "unknown_event",
    ]


def test_it_says_when_it_is_behind(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("projections.waiting.LONGEST_SECONDS", 0.05)
    customer_create(name="Ada")
    event = StoredEvent.objects.get()

    answer = api.get(f"{DIRECTORY}?wait_for={event.pk}")

    assert answer.status_code == 503
    assert answer["Retry-After"] == "1"
    assert answer.json()["code"] == "read_model_behind"


def test_an_event_without_a_field_is_a_failure_and_holds_nobody_else_up() -> None:
    publish_deposits(
        deposit("x", topic="customers", type="customer.created", aggregate_type="customer", payload={"name": "?"})
    )
    customer_create(name="Ada")

    projections_run_once()

    failure = Failure.objects.get(projection="customer_directory")
    assert (failure.error_class, failure.message) == ("schema", "'customer_id'")
    assert [entry.name for entry in DirectoryEntry.objects.all()] == ["Ada"]
    assert ActivityDay.objects.get(origin="api").events == 1
    assert set(Build.objects.filter(state="live").values_list("projection", flat=True)) >= {
        "customer_directory",
        "customer_activity",
    }
