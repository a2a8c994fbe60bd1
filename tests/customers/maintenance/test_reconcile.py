"""Both sides compared over the sandbox's HTTP: what is mended by rule, and what a person is asked."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest
import stripe
from django.core.management import call_command
from django.utils import timezone
from pytest_django import Settings

from customers.integrations import RetryableError
from customers.models import Conflict, Customer, Drift, ReconcileSeen, SyncRequest, SyncState
from customers.reconciling import kinds, pages
from customers.reconciling.drifts import drifts_prune_once
from customers.reconciling.steps import Steps
from customers.services import customer_create, customer_delete, customer_update
from customers.stripe.integration import StripeIntegration
from operations.long_actions.documents import operation_document
from operations.long_actions.kinds import Item, Outcome
from operations.long_actions.planning import operation_create
from operations.long_actions.runner import operation_run, operations_run_once
from operations.long_actions.steering import operation_start
from operations.models import Operation, OperationItem
from tests.children import child_run
from tests.customers.maintenance.conftest import linked, reconcile, run, unheard
from tests.customers.stripe.conftest import StripeSide
from tests.customers.sync.conftest import Died
from zenskar.sandbox.stripe.dashboard import customers_fill

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.feature("G5", "H6", "C4")]

LONG_AGO = "2020-01-01T00:00:00Z"


def killed_at(step: str) -> int:
    """Let a worker of its own come as far as a step of this kind, and die before the outcome of that step is recorded;
    how it ended."""
    Operation.objects.update(lease_until=LONG_AGO, next_step_at=LONG_AGO)
    take = Steps.take

    def dying(self: Steps, item: Item) -> Outcome:
        outcome = take(self, item)
        if item.data["step"] == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return outcome

    def work() -> None:
        Steps.take = dying  # type: ignore[method-assign]
        operations_run_once(budget=20)

    return child_run(work).returncode


def dying_at(step: str) -> None:
    """Let a worker of this process come as far as a step of this kind; what it did not record is forgotten."""
    Operation.objects.update(lease_until=LONG_AGO, next_step_at=LONG_AGO)
    take = Steps.take

    def dying(self: Steps, item: Item) -> Outcome:
        outcome = take(self, item)
        if item.data["step"] == step:
            raise Died(step)
        return outcome

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Steps, "take", dying)
        operations_run_once(budget=20)


def test_it_finds_nothing_where_both_sides_agree(both: StripeSide) -> None:
    for number in range(3):
        customer_create(name=f"Ada {number}", email=f"ada{number}@example.com", metadata={"plan": "gold"})
    both.rest()
    both.sandbox.request_log.clear()

    status, result = reconcile()

    assert (status, result["compared"], result["differences"]) == (0, 3, {})
    assert result["complete"]
    assert both.sandbox.request_log.writes() == []
    assert len(both.sandbox.request_log) == len(both.sandbox.request_log.matching("GET /v1/customers"))
    assert not Drift.objects.exists()
    assert not ReconcileSeen.objects.exists()


def test_it_mends_fields_that_differ_by_looking_as_usual(both: StripeSide) -> None:
    there, remote_there = linked(both, name="Ada", phone="1")
    here, _ = linked(both, name="Bob")
    both.sandbox.customer_edit(remote_there, phone="2")
    unheard(both)
    Customer.objects.filter(pk=here.pk).update(name="Bobby")

    status, result = reconcile()
    repairs = dict(Drift.objects.values_list("customer_id", "status"))
    both.rest()

    there.refresh_from_db()
    assert (status, result["differences"], result["repaired"]) == (0, {"field_difference": 2}, 2)
    assert repairs == {there.pk: "repaired", here.pk: "repaired"}
    assert there.phone == "2"
    assert both.there(here)["name"] == "Bobby"
    assert Drift.objects.get(customer=there).fields == [{"field": "phone", "base": "1", "ours": "1", "theirs": "2"}]


def test_a_dry_run_shows_both_and_does_nothing(both: StripeSide) -> None:
    _, remote_id = linked(both, name="Ada")
    both.sandbox.customer_edit(remote_id, name="Countess")
    both.sandbox.customer_add(name="Eve", email="eve@example.com")
    unheard(both)
    both.sandbox.request_log.clear()

    status, result = reconcile("--dry-run")

    assert (status, result["repairable"], result["repaired"]) == (3, 2, 0)
    assert result["differences"] == {"field_difference": 1, "missing_here": 1}
    assert set(Drift.objects.values_list("kind", "status", "safe")) == {
        ("field_difference", "open", True),
        ("missing_here", "open", True),
    }
    assert both.dirty() == []
    assert Customer.objects.count() == 1
    assert both.sandbox.request_log.writes() == []


def test_it_imports_what_nobody_knows_here(both: StripeSide) -> None:
    both.sandbox.customer_add(name="Eve", email="eve@example.com", metadata={"plan": "gold"})
    both.sandbox.customer_add()
    unheard(both)

    status, result = reconcile()
    events = [event for event in both.events() if event.type == "customer.created"]

    assert (status, result["imported"]) == (0, 2)
    eve = Customer.objects.get(email="eve@example.com")
    assert (eve.name, eve.metadata) == ("Eve", {"plan": "gold"})
    assert both.state(eve).status == "in_sync"
    assert [event.origin for event in events] == ["stripe", "stripe"]
    assert reconcile()[1]["differences"] == {}


def test_it_takes_no_late_write_for_a_difference(both: StripeSide) -> None:
    ada, _ = linked(both, name="Ada")
    _, remote_bob = linked(both, name="Bob")
    customer_update(customer_id=ada.pk, changes={"name": "Ada L."})
    both.poke()
    both.sandbox.customer_edit(remote_bob, name="Bobby")
    for webhook in both.sandbox.webhooks.pending():
        both.post(webhook.body, **webhook.headers)

    status, result = reconcile()

    assert (status, result["differences"]) == (0, {})
    assert not Drift.objects.exists()


def test_it_looks_again_at_what_moved_while_it_was_fetched(both: StripeSide, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page was read, then both sides moved on together: by the second look they agree."""
    ada, _ = linked(both, name="Ada")
    compare = pages.page_compare

    def late(*args: Any) -> Any:
        customer_update(customer_id=ada.pk, changes={"name": "Ada L."})
        both.rest()
        return compare(*args)

    monkeypatch.setattr(pages, "page_compare", late)

    status, result = reconcile()

    assert (status, result["differences"]) == (0, {})
    assert both.there(ada)["name"] == "Ada L."


def test_it_tells_deleted_there_from_never_heard_of(both: StripeSide) -> None:
    deleted, remote_deleted = linked(both, name="Ada")
    unknown, _ = linked(both, name="Bob")
    both.sandbox.customer_remove(remote_deleted)
    unheard(both)
    SyncState.objects.filter(customer=unknown).update(remote_id="cus_of_another_account")

    status, result = reconcile("--only", "tombstone_mismatch", "--only", "missing_there")
    both.rest()

    deleted.refresh_from_db()
    unknown.refresh_from_db()
    assert (status, result["proposed"], result["repaired"]) == (3, 1, 1)
    assert deleted.deleted_at is not None
    assert unknown.deleted_at is None
    proposal = Drift.objects.open().get()
    assert (proposal.kind, proposal.repair, proposal.safe) == ("missing_there", "create_there", False)


def test_it_pushes_what_was_never_created_there(both: StripeSide) -> None:
    lost = customer_create(name="Lost")
    both.events()

    status, result = reconcile()
    both.rest()

    assert (status, result["differences"]) == (0, {"missing_there": 1})
    assert both.there(lost)["name"] == "Lost"


def test_it_deletes_there_what_was_deleted_here_and_made_by_us(both: StripeSide) -> None:
    ada, remote_id = linked(both, name="Ada")
    customer_delete(customer_id=ada.pk)
    both.events()

    status, result = reconcile()
    both.rest()

    assert (status, result["differences"], result["repaired"]) == (0, {"tombstone_mismatch": 1}, 1)
    assert remote_id not in both.sandbox.customers


@pytest.mark.feature("C15")
def test_it_deletes_nothing_when_it_would_be_much(both: StripeSide, settings: Settings) -> None:
    settings.RECONCILE_DELETES_MOST = 2
    for customer in [linked(both, name=f"Ada {number}")[0] for number in range(3)]:
        customer_delete(customer_id=customer.pk)
    both.events()

    status, result = reconcile()
    both.rest()

    assert (status, result["proposed"], result["repaired"]) == (3, 3, 0)
    assert len(both.sandbox.customers) == 3
    assert all("More than 2" in why for why in Drift.objects.open().values_list("why_not", flat=True))


@pytest.mark.feature("C15")
@pytest.mark.parametrize("reason", ["young", "subscribed", "not made by us"])
def test_it_asks_before_it_deletes_what_is_not_safe(both: StripeSide, settings: Settings, reason: str) -> None:
    if reason == "not made by us":
        both.sandbox.customer_add(name="Ada")
        both.rest()
        ada = Customer.objects.get()
    else:
        ada, _ = linked(both, name="Ada")
    remote_id = both.state(ada).remote_id or ""
    if reason == "young":
        settings.RECONCILE_MIN_AGE = 86_400
    if reason == "subscribed":
        from customers.stripe.client import stripe_client
        from customers.stripe.conf import stripe_settings

        client = stripe_client(stripe_settings())
        client.v1.subscriptions.create({"customer": remote_id, "items": [{"price": "price_gold"}]})
    customer_delete(customer_id=ada.pk)
    both.events()
    unheard(both)

    status, result = reconcile()
    both.rest()

    assert (status, result["proposed"]) == (3, 1)
    assert remote_id in both.sandbox.customers
    assert Drift.objects.open().get().why_not


def test_it_proposes_a_link_where_an_e_mail_is_the_same(both: StripeSide) -> None:
    both.sandbox.customer_add(name="Ada", email="ada@example.com")
    unheard(both)
    here = customer_create(name="Ada", email="ada@example.com", phone="1")
    both.events()

    status, _ = reconcile()

    # What was never created there is pushed; the record that is there already is asked about first.
    assert status == 3
    proposal = Drift.objects.open().get(kind="unlinked")
    assert (proposal.customer_id, proposal.repair, proposal.safe) == (here.pk, "link", False)
    assert Conflict.objects.open().get().kind == "email_taken"


def test_it_names_a_second_record_of_one_customer(both: StripeSide) -> None:
    ada, _ = linked(both, name="Ada")
    copy = both.sandbox.customer_add(name="Ada's copy", metadata={"zenskar_id": str(ada.pk)})
    unheard(both)

    status, result = reconcile()

    assert (status, result["differences"]) == (3, {"duplicate_link": 1})
    proposal = Drift.objects.open().get()
    assert (proposal.remote_id, proposal.repair, proposal.destroys) == (copy["id"], "delete_there", True)
    assert "copy" in proposal.why_not


@pytest.mark.feature("C7")
def test_it_deletes_a_spare_that_a_late_create_of_ours_made(both: StripeSide) -> None:
    """The create's outcome was unknown and the look-up found nothing; its effect came after that."""
    ada, _ = linked(both, name="Ada")
    SyncRequest.objects.filter(state__customer=ada).update(sends=2)
    spare = both.sandbox.customer_add(name="Ada", metadata={"zenskar_id": str(ada.pk)})
    unheard(both)

    status, result = reconcile()

    assert (status, result["repaired"]) == (0, 1)
    assert spare["id"] not in both.sandbox.customers
    assert both.there(ada)["name"] == "Ada"
    assert SyncState.objects.get(remote_id=spare["id"]).status == "deleted"


@pytest.mark.feature("C11")
def test_it_goes_on_where_it_was_killed(both: StripeSide) -> None:
    """Killed at each kind of step, and with what it did not commit forgotten: nothing is done twice."""
    ada, remote_id = linked(both, name="Ada")
    gone, _ = linked(both, name="Gone")
    customer_delete(customer_id=gone.pk)
    both.events()
    both.sandbox.customer_edit(remote_id, name="Countess")
    both.sandbox.customer_add(name="Eve", email="eve@example.com")
    unheard(both)
    operation = operation_create(
        kind="customers.reconcile", filter={"integration": "stripe"}, reason="see", actor="user:ann"
    )
    operation_start(operation_id=operation.pk, actor="user:ann")

    killed = killed_at("page")
    for step in ("look", "repair", "close"):
        with pytest.raises(Died):
            dying_at(step)
    Operation.objects.update(lease_until=LONG_AGO, next_step_at=LONG_AGO)
    operation = operation_run(operation.pk, seconds=60)
    both.rest()

    assert killed == -signal.SIGKILL
    assert (operation.state, operation.failed) == ("completed", 0)
    assert operation_document(operation)["result"] | {"complete": True} == {
        "integration_name": "stripe",
        "dry_run": False,
        "complete": True,
        "compared": 3,
        "missing_here": 1,
        "imported": 1,
        "differences": {"field_difference": 1, "missing_here": 1, "tombstone_mismatch": 1},
        "repaired": 2,
        "repairable": 0,
        "proposed": 0,
        "other": 0,
    }
    assert Customer.objects.filter(email="eve@example.com").count() == 1
    ada.refresh_from_db()
    assert ada.name == "Countess"
    assert len(both.sandbox.customers) == 2


@pytest.mark.feature("D11")
def test_it_waits_while_stripe_does_not_answer(both: StripeSide) -> None:
    both.sandbox.customer_add(name="Eve")
    unheard(both)
    both.sandbox.faults.add(route="GET /v1/customers", status=500, times=2)
    both.sandbox.faults.add(route="GET /v1/customers", status=429, times=1)

    status, result = reconcile()

    assert (status, result["imported"], result["complete"]) == (0, 1, True)


def test_it_calls_nothing_missing_when_a_page_could_not_be_read(
    both: StripeSide, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    linked(both, name="Ada")
    settings.STRIPE_API_KEY = "sk_test_wrong"
    monkeypatch.setattr(kinds, "_LONGEST_PAUSE", 0.05)

    status, result = reconcile()

    assert (status, result["complete"]) == (1, False)
    assert result["differences"] == {}
    assert not Drift.objects.exists()


@pytest.mark.feature("F5")
def test_the_command_tells_people_what_it_found(both: StripeSide, capsys: pytest.CaptureFixture[str]) -> None:
    _, remote_id = linked(both, name="Ada", phone="1")
    both.sandbox.customer_edit(remote_id, phone="2")
    unheard(both)

    with pytest.raises(SystemExit):
        call_command("stripe_reconcile", "--dry-run")
    # Nobody has to decide: the next comparison mends it.
    call_command("drift", "list")
    told = capsys.readouterr().out

    assert "1 record compared, differences: 1 field_difference." in told
    assert "1 would be mended by rule; 0 would be asked about." in told
    assert "Nothing was mended. Which they are: manage.py drift list" in told
    assert 'phone: here "1", there "2"  repair: look_again (safe by rule: the next comparison makes it)' in told


def test_the_command_leaves_it_to_workers_when_it_is_interrupted(
    both: StripeSide, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from customers.management import operating

    def interrupted(*args: Any, **more: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(operating, "operation_run", interrupted)

    with pytest.raises(SystemExit) as ended:
        call_command("stripe_reconcile")
    monkeypatch.undo()
    status, _ = run("stripe_reconcile")

    assert (ended.value.code, status) == (130, 0)
    assert Operation.objects.get().state == "completed"
    assert "Workers go on" in capsys.readouterr().err


@pytest.mark.feature("C15")
def test_what_ended_long_ago_is_removed(both: StripeSide) -> None:
    linked(both, name="Ada")
    Customer.objects.update(name="Ada L.")
    run("stripe_reconcile")
    ReconcileSeen.objects.create(operation_id=999_999, remote_id="cus_left")

    young = drifts_prune_once()
    Drift.objects.update(ended_at=LONG_AGO)

    assert (young, drifts_prune_once()) == (1, 1)
    assert not Drift.objects.exists()


@pytest.mark.feature("G5")
def test_a_long_window_is_halved_until_there_are_enough_readers(
    both: StripeSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And every record is read, each by one reader or by the one that begins where it ended."""
    monkeypatch.setattr(pages, "PAGES_MOST", 1)
    customers_fill(both.sandbox, 1_500, days=200)

    status, document = run("stripe_import")

    windows = OperationItem.objects.filter(key__startswith="page:").values_list("data__window", flat=True)
    assert (status, document["result"]["imported"]) == (0, 1_500)
    assert len({str(window) for window in windows if "." in str(window)}) >= 2
    assert Customer.objects.count() == 1_500


@pytest.mark.feature("G5")
def test_an_answer_that_is_no_json_is_asked_for_again(both: StripeSide, monkeypatch: pytest.MonkeyPatch) -> None:
    integration = StripeIntegration()
    monkeypatch.setattr(stripe.RequestsClient, "request", lambda *arguments, **more: (b"<html>", 200, {}), raising=True)

    with pytest.raises(RetryableError) as caught:
        integration.page(since=None, until=timezone.now())

    assert caught.value.code == "no_answer"
