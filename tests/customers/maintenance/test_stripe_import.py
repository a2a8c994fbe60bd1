"""An account that was there before us becomes ours, whatever is in it."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection

from customers.integrations import integration_get
from customers.models import Conflict, Customer, Drift, ReconcileRun, SyncState
from customers.reconciling.importing import records_import
from customers.reconciling.pages import Pages
from customers.services import customer_create
from customers.sync.webhooks import webhooks_process_once
from dbresilience.transactions import run_in_transaction
from operations.models import AuditEntry, Operation
from tests.children import child_run
from tests.customers.maintenance.conftest import linked, run, unheard
from tests.customers.races import in_threads
from tests.customers.stripe.conftest import StripeSide

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.feature("G5")]


def test_it_takes_everybody_in_and_asks_nobody_twice(both: StripeSide) -> None:
    here, _ = linked(both, name="Here")
    both.sandbox.customer_add(name="Ada", email="ada@example.com", phone="1", metadata={"plan": "gold"})
    both.sandbox.customer_add()
    both.sandbox.customer_add(name="Bob", phone="2", address={"city": "Turin"})
    unheard(both)
    both.sandbox.request_log.clear()

    status, document = run("stripe_import")
    again, second = run("stripe_import")
    events = [event for event in both.events() if event.type == "customer.created"]

    assert (status, document["result"]["imported"], again, second["result"]["imported"]) == (0, 3, 0, 0)
    ada, bob = Customer.objects.get(email="ada@example.com"), Customer.objects.get(name="Bob")
    assert (ada.phone, ada.metadata, bob.address, bob.email) == ("1", {"plan": "gold"}, {"city": "Turin"}, None)
    assert {event.aggregate_id for event in events} == {str(c.pk) for c in Customer.objects.exclude(pk=here.pk)}
    assert len(both.sandbox.request_log) == len(both.sandbox.request_log.matching("GET /v1/customers"))
    both.rest()
    assert both.sandbox.request_log.writes() == []
    assert set(SyncState.objects.values_list("status", flat=True)) == {"in_sync"}
    assert AuditEntry.objects.filter(action="operation.completed").count() == 2


def test_what_changes_afterwards_is_a_change(both: StripeSide) -> None:
    added = both.sandbox.customer_add(name="Ada")
    unheard(both)
    run("stripe_import")

    both.sandbox.customer_edit(added["id"], phone="1")
    both.rest()

    assert Customer.objects.get().phone == "1"
    assert not Conflict.objects.exists()


@pytest.mark.feature("C3")
def test_it_proposes_and_never_merges_a_second_one(both: StripeSide) -> None:
    linked(both, name="Ada", email="ada@example.com")
    both.sandbox.customer_add(name="Other Ada", email="ADA@example.com")
    twins = [both.sandbox.customer_add(name=name, email="twin@example.com") for name in ("One", "Two")]
    unheard(both)

    status, document = run("stripe_import")

    assert (status, document["result"]["imported"], document["result"]["proposed"]) == (3, 1, 2)
    assert Customer.objects.filter(email__iexact="twin@example.com").count() == 1
    assert set(Drift.objects.open().values_list("kind", flat=True)) == {"unlinked"}
    assert Conflict.objects.open().filter(kind="email_taken").count() == 2
    assert len(both.sandbox.customers) == 4
    assert {twin["id"] for twin in twins} <= set(SyncState.objects.values_list("remote_id", flat=True))


def test_a_dry_run_counts(both: StripeSide) -> None:
    both.sandbox.customer_add(name="Ada")
    unheard(both)

    status, document = run("stripe_import", "--dry-run")

    assert (status, document["result"]["missing_here"], document["result"]["imported"]) == (0, 1, 0)
    assert not Customer.objects.exists()
    assert not Drift.objects.exists()


def test_it_looks_at_what_the_catalogue_cannot_hold_by_itself(both: StripeSide) -> None:
    added = both.sandbox.customer_add(name="Ada")
    both.sandbox.store.customers.put(added["id"], {**added, "phone": "0" * 40})
    unheard(both)

    run("stripe_import")
    both.rest()

    assert SyncState.objects.get().status == "orphaned"
    assert Conflict.objects.open().get().kind == "refused_here"


@pytest.mark.feature("C11")
def test_it_goes_on_where_it_was_killed(both: StripeSide) -> None:
    from zenskar.sandbox.stripe.dashboard import customers_fill

    customers_fill(both.sandbox, 450)
    read = Pages._compared

    def work() -> None:
        pages: list[Any] = []

        def dying(self: Pages, page: Any, same: Any) -> Any:
            found = read(self, page, same)
            pages.extend(page.records)
            if len(pages) == 300:
                os.kill(os.getpid(), signal.SIGKILL)
            return found

        # At its third page with anybody on it, before that page is recorded.
        Pages._compared = dying  # type: ignore[method-assign]
        call_command("stripe_import")

    ended = child_run(work)
    kept = Customer.objects.count()
    Operation.objects.update(lease_until="2020-01-01T00:00:00Z", next_step_at="2020-01-01T00:00:00Z")

    status, document = run("stripe_import")

    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert 100 <= kept < 450
    assert (status, document["state"], document["result"]["imported"]) == (0, "completed", 450)
    assert Operation.objects.count() == ReconcileRun.objects.count() == 1
    assert Customer.objects.count() == SyncState.objects.filter(customer__isnull=False).count() == 450


@pytest.mark.feature("C1")
def test_a_webhook_and_the_import_make_one_customer(both: StripeSide) -> None:
    """Both know of a record at the same moment; whoever comes second finds the first one's row."""
    added = both.sandbox.customer_add(name="Ada", email="ada@example.com")
    integration = integration_get("stripe")
    record = integration.retrieve(remote_id=added["id"])
    assert record is not None
    for webhook in both.sandbox.webhooks.pending():
        both.post(webhook.body, **webhook.headers)
    start = threading.Barrier(2)

    def importing() -> None:
        start.wait(60)
        run_in_transaction(lambda: records_import(integration, [record]))

    def hearing() -> None:
        start.wait(60)
        webhooks_process_once()

    errors = in_threads(importing, hearing)
    both.rest()

    assert errors == []
    assert Customer.objects.count() == SyncState.objects.count() == 1
    assert SyncState.objects.get().status == "in_sync"


@pytest.mark.feature("H6")
def test_a_page_is_compared_with_an_index_whatever_is_known_of_the_table(both: StripeSide) -> None:
    from customers.reconciling.comparing import PAGE_SQL

    ids = json.dumps([f"cus_{n}" for n in range(100)])
    values = {"integration": "stripe", "account": "", "livemode": False, "ids": ids}
    insert = (
        "INSERT INTO customers_syncstate (integration, account, livemode, remote_id, correlation_id, traceparent,"
        " poke_count, priority, attempts, status, lease_token)"
        " SELECT %s, '', false, 'cus_' || n, '', '', 0, 0, 0, 'orphaned', 0 FROM generate_series(1, %s) n"
    )
    plans = []

    with connection.cursor() as cursor:

        def look() -> None:
            cursor.execute("EXPLAIN " + PAGE_SQL, values)
            plans.append("\n".join(row[0] for row in cursor.fetchall()))

        # Autovacuum may have analysed it with the rows of an earlier test.
        cursor.execute("DELETE FROM pg_statistic WHERE starelid = 'customers_syncstate'::regclass")
        cursor.execute(insert, ["other", 10_000])
        look()
        cursor.execute("ANALYZE customers_syncstate")
        look()
        cursor.execute(insert, ["stripe", 10_000])
        look()
        cursor.execute("ANALYZE customers_syncstate")
        look()

    for plan in plans:
        assert re.search(r"Index Cond: \(\(remote_id\)::text = given", plan), plan


def test_a_customer_created_here_meanwhile_keeps_its_e_mail(both: StripeSide) -> None:
    added = both.sandbox.customer_add(name="There", email="ada@example.com")
    unheard(both)
    customer_create(name="Here", email="ada@example.com")
    both.events()

    run("stripe_import")

    state = SyncState.objects.get(remote_id=added["id"])
    assert (state.customer, state.status) == (None, "orphaned")
    assert Customer.objects.get().name == "Here"
