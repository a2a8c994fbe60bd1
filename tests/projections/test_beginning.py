"""Where builds begin when retention has removed the first events: at the present state, exactly."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal

import pytest
from django.conf import LazySettings
from django.core.management import CommandError, call_command
from django.db import connection
from django.db.models import QuerySet
from django.utils import timezone

from customers.models import ActivityDay, Customer, DirectoryEntry
from customers.services import customer_create, customer_delete, customer_update
from dbresilience.transactions import run_in_transaction
from examples.petstore.models import OrderBookEntry
from examples.petstore.services import order_place, order_ship, pet_create
from outbox.cutting import at_cut
from outbox.models import LogEntry, Retained, StoredEvent
from outbox.retention import partitions_prune
from outbox.sequencing import Sequencer
from projections.beginning import LogNotWhole, log_done_through
from projections.checks import check_projections
from projections.comparing import rebuild_compare
from projections.models import Build, Failure
from projections.rebuilding import rebuild_start, rebuild_switch
from projections.resetting import projection_reset, reset_token
from projections.resolving import failure_resolve
from projections.runner import projections_run_once
from projections.verifying import NotVerifiable, projection_verify
from tests.customers.conftest import Api
from tests.customers.races import in_threads
from tests.outbox.conftest import collector
from tests.outbox.test_retention import SIZE, fill, small
from tests.projections.cleaning import builds_drop
from tests.projections.conftest import deposit, live, publish_deposits
from tests.projections.models_of_tests import Totals

__all__ = ["collector", "small"]

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.feature("H3")]

TABLES = ("customers_directory", "customers_activity", "petstore_order_book")


@pytest.fixture(autouse=True)
def _clean(transactional_db: None) -> Iterator[None]:
    builds_drop(*TABLES)
    yield
    builds_drop(*TABLES)


def events_remove() -> None:
    """Everything published so far goes, as retention takes it away."""
    last = StoredEvent.objects.latest("id").pk
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM outbox_log WHERE event_id <= %s", [last])
        cursor.execute("DELETE FROM outbox_event WHERE id <= %s", [last])
        cursor.execute("SELECT last_value FROM outbox_log_position_seq")
        Retained.objects.create(first_event_id=last + 1, first_position=cursor.fetchone()[0] + 1)


def directory() -> dict[object, tuple[object, ...]]:
    rows = DirectoryEntry.objects.values_list("customer_id", "name", "email", "version")
    return {row[0]: row[1:] for row in rows}


def customers() -> dict[object, tuple[object, ...]]:
    rows = Customer.objects.active().values_list("pk", "name", "email", "version")
    return {row[0]: row[1:] for row in rows}


def test_a_build_begins_at_the_present_state_and_goes_on_from_there(settings: LazySettings) -> None:
    settings.OUTBOX_RETENTION = {"customers": "7"}
    settings.PROJECTIONS = ["customers.readmodels.directory.CustomerDirectory"]
    ada, bob, eve = (customer_create(name=name, email=f"{name}@example.com") for name in ("ada", "bob", "eve"))
    projections_run_once()
    events_remove()
    # Published, and without a place yet: the present state has it, and it must not come again.
    customer_update(customer_id=ada.pk, changes={"name": "Ada"})
    customer_delete(customer_id=eve.pk)

    build = rebuild_start(name="customer_directory", actor="user:ann")
    customer_update(customer_id=bob.pk, changes={"name": "Bob"})
    customer_create(name="new")
    projections_run_once()
    rebuild_switch(name="customer_directory", actor="user:ann")

    build.refresh_from_db()
    assert (build.state, build.events_processed) == ("live", 2)
    assert directory() == customers()
    assert [row.last_sequence for row in DirectoryEntry.objects.filter(name__in=["Ada", "Bob"])] == [2, 2]
    assert DirectoryEntry.objects.get(name="Ada").origin == "api"


def test_the_first_build_and_a_reset_do_the_same(settings: LazySettings) -> None:
    settings.OUTBOX_RETENTION = {"*": "7"}
    settings.PROJECTIONS = ["examples.petstore.order_book.OrderBook"]
    pet, _ = pet_create(name="Max", species="dog", price=Decimal(5), stock=3)
    orders = [order_place(customer_id="c", pet_id=pet.pk)[0].pk for _ in range(2)]
    Sequencer().sequence_once()
    events_remove()

    projections_run_once()
    at_first = set(OrderBookEntry.objects.values_list("order_id", "status", "last_sequence"))
    order_ship(order_id=orders[0], caused_by="x")
    projection_reset(name="order_book", token=reset_token(name="order_book", actor="a"), actor="a")
    projections_run_once()

    assert at_first == {(order, "confirmed", 2) for order in orders}
    assert set(OrderBookEntry.objects.values_list("order_id", "status", "last_sequence")) == {
        (orders[0], "shipped", 3),
        (orders[1], "confirmed", 2),
    }


def activity() -> dict[tuple[int, str], int]:
    """By days ago and type."""
    today = timezone.now().date()
    return {((today - row.day).days, row.type): row.events for row in ActivityDay.objects.all()}


def test_sums_keep_the_days_that_the_log_has_no_more(settings: LazySettings) -> None:
    settings.OUTBOX_RETENTION = {"customers": "7"}
    settings.PROJECTIONS = ["customers.readmodels.activity.CustomerActivity"]
    for name in ("ada", "bob"):
        customer_create(name=name)
    age(StoredEvent.objects.all(), days=9)
    projections_run_once()
    events_remove()
    # The first day of what is left, of which retention may have removed some; applied, and not applied yet.
    customer_create(name="cat")
    age(StoredEvent.objects.all(), days=5)
    projections_run_once()
    dan = customer_create(name="dan")
    age(StoredEvent.objects.order_by("-id")[:1], days=5)
    # A whole day; not applied, and without a place yet.
    customer_update(customer_id=dan.pk, changes={"name": "Dan"})

    build = rebuild_start(name="customer_activity", actor="user:ann")
    customer_delete(customer_id=dan.pk)
    projections_run_once()
    compared = rebuild_compare(name="customer_activity")
    rebuild_switch(name="customer_activity", actor="user:ann")
    rebuilt = activity()
    projection_reset(name="customer_activity", token=reset_token(name="customer_activity", actor="a"), actor="a")
    projections_run_once()

    build.refresh_from_db()
    assert compared.is_same and build.events_processed == 1
    assert rebuilt == {
        (9, "customer.created"): 2,
        (5, "customer.created"): 2,
        (0, "customer.updated"): 1,
        (0, "customer.deleted"): 1,
    }
    assert activity() == {key: count for key, count in rebuilt.items() if key[0] != 9}
    assert check_projections() == []


def age(events: QuerySet[StoredEvent], *, days: int) -> None:
    moment = timezone.now() - timedelta(days=days)
    StoredEvent.objects.filter(pk__in=list(events.values_list("pk", flat=True))).update(created_at=moment)


def test_who_cannot_begin_without_the_first_events_is_refused(totals: type[Totals], settings: LazySettings) -> None:
    settings.OUTBOX_RETENTION = {"accounts": "7"}
    publish_deposits("a", "b", deposit("c", -5))
    projections_run_once()
    events_remove()
    publish_deposits("a", deposit("c", 1))
    projections_run_once()
    failure = Failure.objects.get()

    refused = []
    for action in (
        lambda: rebuild_start(name="totals", actor="a"),
        lambda: projection_reset(name="totals", token=reset_token(name="totals", actor="a"), actor="a"),
    ):
        with pytest.raises(LogNotWhole) as raised:
            action()
        refused.append(raised.value.status)
    with pytest.raises(NotVerifiable):
        projection_verify(name="totals")
    with pytest.raises(CommandError, match="Retention has removed"):
        call_command("projection_verify")
    with pytest.raises(Exception, match="Retention has removed the first events"):
        failure_resolve(failure_id=failure.pk, strategy="rebuild_aggregate", actor="a")

    assert refused == [409, 409]
    assert Build.objects.get().state == "live"
    assert [one.id for one in check_projections()] == ["projections.W006"]


def test_a_reset_over_the_api_needs_a_transaction_of_its_own(settings: LazySettings) -> None:
    settings.OUTBOX_RETENTION = {"orders": "7"}
    settings.PROJECTIONS = ["examples.petstore.order_book.OrderBook"]
    pet, _ = pet_create(name="Max", species="dog", price=Decimal(5))
    order_place(customer_id="c", pet_id=pet.pk)
    projections_run_once()
    events_remove()
    api, path = Api("operations:read", "operations:write"), "/api/v1/admin/projections/order_book/reset"
    token = {"confirmation_token": api.post(path, {}).json()["confirmation_token"]}

    refused = api.post(path, token, Idempotency_Key="once")
    done = api.post(path, token)

    assert (refused.status_code, refused.json()["code"]) == (409, "needs_own_transaction")
    assert done.status_code == 202, done.content
    assert OrderBookEntry.objects.get().status == "confirmed"


def test_topics_that_are_kept_for_ever_have_lost_nothing(totals: type[Totals], settings: LazySettings) -> None:
    settings.OUTBOX_RETENTION = {"others": "7"}
    Retained.objects.create(first_event_id=5, first_position=5)
    publish_deposits("a", "b")
    projections_run_once()

    build = rebuild_start(name="totals", actor="a")
    projections_run_once()

    build.refresh_from_db()
    assert build.events_processed == 2
    assert check_projections() == []


def test_a_cut_sees_what_the_events_up_to_it_have_done_and_no_more(collector: object) -> None:
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE cut_rows (id bigint GENERATED ALWAYS AS IDENTITY, account text)")
    over = threading.Event()
    cuts: list[tuple[int, int]] = []

    def write(name: str) -> None:
        def work() -> None:
            with connection.cursor() as cursor:
                cursor.execute("INSERT INTO cut_rows (account) VALUES (%s)", [name])
            publish_deposits(name)

        while not over.is_set():
            run_in_transaction(work)

    def sequence() -> None:
        sequencer = Sequencer()
        while not over.is_set():
            sequencer.sequence_once()

    def seen(place: int) -> tuple[int, int]:
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM cut_rows")
            return place, cursor.fetchone()[0]

    def cut() -> None:
        try:
            cuts.extend(at_cut(seen) for _ in range(5))
        finally:
            over.set()

    errors = in_threads(lambda: write("x"), lambda: write("y"), sequence, cut)
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE cut_rows")
    places = [LogEntry.objects.filter(position__lte=place).count() for place, _ in cuts]

    assert errors == []
    assert len(cuts) == 5 and cuts[-1][1] > cuts[0][1]
    assert [rows for _, rows in cuts] == places


def test_the_log_is_kept_for_a_read_model_that_is_behind(
    small: object, totals: type[Totals], settings: LazySettings
) -> None:
    settings.OUTBOX_RETENTION = {"*": "7"}
    projections_run_once()
    publish_deposits(deposit("bad", -5))
    fill(120)
    done = []

    def judged() -> list[str]:
        """What was in the way of partitions, where something was."""
        done.append(log_done_through())
        # Transactions of the server's other databases, where other tests run, are waited for.
        return [one.obstacle for one in partitions_prune(apply=True, size=SIZE, wait=10) if one.obstacle]

    behind = judged()
    projections_run_once()
    failing = judged()
    failure_resolve(failure_id=Failure.objects.get().pk, strategy="skip", actor="a")
    projections_run_once()
    through = judged()

    waits = "a read model has not read all of it"
    assert behind[0] == failing[0] == waits
    assert waits not in through
    assert done == [0, Failure.objects.get().position - 1, live().cursor]
    assert not StoredEvent.objects.filter(pk=Failure.objects.get().event_id).exists()
