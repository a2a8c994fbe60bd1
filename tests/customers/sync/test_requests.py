"""The request in flight: crashes at every step, lost answers, keys that can no longer be trusted."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import IntegrityError, transaction
from django.db.models import F

from customers.integrations import PermanentError, RetryableError
from customers.models import Conflict, Customer, SyncAccount, SyncRequest, SyncState
from customers.services import customer_create, customer_delete, customer_update
from customers.sync.engine import Outcome, sync_once
from tests.customers.sync.conftest import Died, Side, dies_at
from tests.customers.sync.memory import Call

pytestmark = pytest.mark.django_db

STEPS = ("taken", "fetched", "decided", "answered", "settled")


def die(side: Side, customer: Customer, step: str) -> None:
    """A worker takes the row and dies; its lease runs out."""
    with pytest.raises(Died):
        sync_once(side.state(customer).pk, on_step=dies_at(step))
    SyncState.objects.update(lease_until="2020-01-01T00:00:00Z")


@pytest.mark.feature("G1")
@pytest.mark.parametrize("step", STEPS)
def test_it_creates_one_customer_whatever_step_the_worker_dies_at(side: Side, step: str) -> None:
    customer = customer_create(name="Ada")
    side.poke()

    die(side, customer, step)
    side.rest()

    assert len(side.world.living()) == 1
    assert len([call for call in side.world.writes() if call.changed]) == 1
    assert side.state(customer).status == SyncState.Status.IN_SYNC


@pytest.mark.feature("G1")
@pytest.mark.parametrize("step", STEPS)
def test_it_sends_an_update_once_whatever_step_the_worker_dies_at(side: Side, step: str) -> None:
    customer = side.linked(name="Ada")
    customer_update(customer_id=customer.pk, changes={"name": "Ada L."})
    side.poke()
    side.world.calls.clear()

    die(side, customer, step)
    side.rest()

    assert side.remote(customer) == {"name": "Ada L."}
    assert len([call for call in side.world.writes() if call.changed]) == 1


@pytest.mark.feature("G1")
@pytest.mark.parametrize("step", STEPS)
def test_it_deletes_once_whatever_step_the_worker_dies_at(side: Side, step: str) -> None:
    customer = side.linked(name="Ada")
    customer_delete(customer_id=customer.pk)
    side.poke()

    die(side, customer, step)
    side.rest()

    assert side.world.living() == []
    assert side.state(customer).status == SyncState.Status.DELETED


@pytest.mark.feature("G1")
def test_it_repeats_the_same_key_after_a_lost_answer(side: Side) -> None:
    customer = customer_create(name="Ada")
    side.poke()
    side.world.lose_answers(1, method="create")

    first = side.sync(customer)
    second = side.sync(customer)

    creates = [call for call in side.world.calls if call.method == "create"]
    request = SyncRequest.objects.get()
    assert (first, second) == (Outcome.FAILED, Outcome.DONE)
    assert [call.key for call in creates] == [request.key, request.key]
    assert [call.replayed for call in creates] == [False, True]
    assert (request.outcome, request.sends) == ("succeeded", 2)
    assert len(side.world.living()) == 1


@pytest.mark.feature("G1")
def test_it_freezes_the_body_until_the_outcome_is_known(side: Side) -> None:
    customer = side.linked(name="Ada", phone="1")
    customer_update(customer_id=customer.pk, changes={"name": "first"})
    side.poke()
    side.world.lose_requests(1, method="update")
    side.sync(customer)

    customer_update(customer_id=customer.pk, changes={"name": "second", "phone": "2"})
    side.rest()

    bodies = [request.body for request in SyncRequest.objects.filter(method="update").order_by("id")]
    assert bodies == [{"name": "first"}, {"name": "second", "phone": "2"}]
    assert side.remote(customer) == {"name": "second", "phone": "2"}


@pytest.mark.feature("G4")
def test_it_takes_its_own_lost_push_for_no_remote_change(side: Side) -> None:
    customer = side.linked(name="Ada")
    customer_update(customer_id=customer.pk, changes={"name": "first"})
    side.poke()
    side.world.lose_answers(1, method="update")
    side.sync(customer)

    customer_update(customer_id=customer.pk, changes={"name": "second"})
    side.rest()

    assert not Conflict.objects.exists()
    assert side.remote(customer) == {"name": "second"}


@pytest.mark.feature("G1", "C2")
@pytest.mark.parametrize("method", ["create", "update", "delete"])
def test_it_looks_up_what_a_lost_answer_said_when_the_repeat_is_refused(side: Side, method: str) -> None:
    customer = customer_create(name="Ada") if method == "create" else side.linked(name="Ada")
    if method == "update":
        customer_update(customer_id=customer.pk, changes={"name": "Ada L."})
    elif method == "delete":
        customer_delete(customer_id=customer.pk)
    side.poke()
    side.world.lose_answers(1, method=method)
    side.world.refuse_repeat(method=method)

    side.rest()

    writes = [call for call in side.world.writes() if call.method == method]
    wanted = {"create": ["Ada"], "update": ["Ada L."], "delete": []}[method]
    assert [record.fields["name"] for record in side.world.living()] == wanted
    assert [call.changed for call in writes] == [True, False]
    assert side.state(customer).status == ("deleted" if method == "delete" else "in_sync")
    assert not SyncRequest.objects.filter(outcome="refused").exists()


@pytest.mark.feature("G1", "C2")
def test_it_takes_a_refusal_for_what_it_is_once_the_look_up_found_nothing(side: Side) -> None:
    customer = customer_create(name="Ada")
    side.poke()
    side.world.lose_requests(1, method="create")
    side.sync(customer)
    side.world.before.append(refused)

    outcome = side.sync(customer)

    requests = SyncRequest.objects.order_by("id")
    assert outcome is Outcome.FAILED
    assert [(request.outcome, request.generation) for request in requests] == [("abandoned", 1), ("refused", 2)]
    assert requests[0].uid == requests[1].uid
    assert (side.state(customer).status, side.world.living()) == ("failed", [])


def refused(call: Call) -> None:
    if call.method == "create":
        raise PermanentError("No such country.", code="country_unsupported")


def expire_key() -> None:
    SyncRequest.objects.in_flight().update(
        first_sent_at=F("first_sent_at") - timedelta(hours=23, minutes=1),
        last_sent_at=F("last_sent_at") - timedelta(hours=23, minutes=1),
    )


@pytest.mark.feature("G1")
def test_it_adopts_what_it_created_when_the_key_is_too_old(side: Side) -> None:
    customer = customer_create(name="Ada", email="ada@example.com")
    side.poke()
    side.world.lose_answers(1, method="create")
    side.sync(customer)
    expire_key()

    side.sync(customer)

    assert len(side.world.living()) == 1
    assert [call.method for call in side.world.writes()] == ["create"]
    assert SyncRequest.objects.get().outcome == "adopted"
    assert side.state(customer).remote_id == side.world.living()[0].remote_id


@pytest.mark.feature("G1")
def test_it_creates_under_the_next_generation_when_the_look_up_finds_nothing(side: Side) -> None:
    customer = customer_create(name="Ada", email="ada@example.com")
    side.poke()
    side.world.lose_requests(1, method="create")
    side.sync(customer)
    expire_key()

    side.sync(customer)

    first, second = SyncRequest.objects.order_by("id")
    assert (first.outcome, second.outcome) == ("abandoned", "succeeded")
    assert (first.uid, second.key) == (second.uid, f"{first.uid}:2")
    assert len(side.world.living()) == 1


@pytest.mark.feature("G1")
def test_it_never_creates_when_the_look_up_itself_failed(side: Side) -> None:
    customer = customer_create(name="Ada", email="ada@example.com")
    side.poke()
    side.world.lose_answers(1, method="create")
    side.sync(customer)
    expire_key()
    side.world.lose_answers(2, method="find")

    outcomes = [side.sync(customer) for _ in range(2)]
    creates = [call.method for call in side.world.writes()]
    in_flight = SyncRequest.objects.in_flight().count()
    SyncAccount.objects.update(closed_until=None)
    outcomes.append(side.sync(customer))

    assert outcomes == [Outcome.FAILED, Outcome.FAILED, Outcome.DONE]
    assert (creates, in_flight) == (["create"], 1)
    assert len(side.world.living()) == 1


@pytest.mark.feature("G1")
def test_it_only_proposes_a_remote_customer_that_has_the_same_email(side: Side) -> None:
    customer = customer_create(name="Ada", email="ada@example.com")
    side.poke()
    side.world.lose_requests(1, method="create")
    side.sync(customer)
    expire_key()
    stranger = side.world.add(name="Somebody", email="ada@example.com")

    side.sync(customer)

    conflict = Conflict.objects.get()
    state = side.state(customer)
    assert (conflict.kind, conflict.theirs) == (Conflict.Kind.SAME_EMAIL, [stranger.remote_id])
    assert state.remote_id != stranger.remote_id
    assert state.status == SyncState.Status.IN_SYNC


@pytest.mark.feature("G1")
def test_it_creates_nothing_while_several_records_carry_the_customers_id(side: Side) -> None:
    customer = customer_create(name="Ada")
    side.poke()
    side.world.lose_answers(1, method="create")
    side.sync(customer)
    expire_key()
    side.world.add(name="Copy", reference=str(customer.pk))

    side.sync(customer)
    SyncState.objects.look_again()
    side.sync(customer)

    assert Conflict.objects.get().kind == Conflict.Kind.SEVERAL
    assert side.state(customer).status == SyncState.Status.CONFLICT
    assert len([call for call in side.world.writes() if call.method == "create"]) == 1


@pytest.mark.feature("G1")
def test_it_goes_on_under_a_new_key_when_a_saved_failure_comes_back(side: Side) -> None:
    customer = customer_create(name="Ada")
    side.poke()
    poisoned: list[str] = []

    def poison(call: Call) -> None:
        if call.method == "create" and call.key in [*poisoned, *([] if poisoned else [call.key])]:
            replayed = call.key in poisoned
            poisoned.append(call.key)
            raise RetryableError("500", code="500", replayed=replayed)

    side.world.before.append(poison)

    side.sync(customer)
    side.sync(customer)

    methods = [call.method for call in side.world.calls]
    assert methods == ["create", "create", "find", "create"]
    assert SyncRequest.objects.order_by("id").last().generation == 2  # type: ignore[union-attr]
    assert len(side.world.living()) == 1


@pytest.mark.feature("G1")
def test_it_looks_up_what_became_of_an_old_update(side: Side) -> None:
    customer = side.linked(name="Ada", phone="1")
    customer_update(customer_id=customer.pk, changes={"name": "first", "phone": "2"})
    side.poke()
    side.world.lose_answers(1, method="update")
    side.sync(customer)
    expire_key()
    customer_update(customer_id=customer.pk, changes={"name": "second"})

    side.rest()

    assert not Conflict.objects.exists()
    assert side.remote(customer) == {"name": "second", "phone": "2"}
    assert SyncRequest.objects.filter(outcome="adopted").count() == 1


@pytest.mark.feature("G1")
def test_it_counts_a_second_deletion_as_done(side: Side) -> None:
    customer = side.linked(name="Ada")
    customer_delete(customer_id=customer.pk)
    side.poke()
    side.world.lose_answers(1, method="delete")

    side.sync(customer)
    side.sync(customer)

    assert side.world.living() == []
    assert side.state(customer).status == SyncState.Status.DELETED
    assert SyncRequest.objects.latest("id").outcome == "succeeded"


@pytest.mark.feature("C8")
def test_it_allows_one_request_in_flight_per_state(side: Side) -> None:
    customer = side.linked(name="Ada")
    state = side.state(customer)
    SyncRequest.objects.create(state=state, method="update")

    with pytest.raises(IntegrityError) as caught, transaction.atomic():
        SyncRequest.objects.create(state=state, method="update")

    assert "customers_syncrequest_in_flight_uniq" in str(caught.value)


@pytest.mark.feature("G2")
def test_it_does_not_import_its_own_create_when_the_message_comes_before_the_answer(side: Side) -> None:
    customer = customer_create(email="ada@example.com")
    side.poke()
    side.world.lose_answers(1, method="create")
    side.sync(customer)

    side.hear()
    rows = SyncState.objects.count()
    side.rest()

    assert Customer.objects.count() == 1
    assert (rows, SyncState.objects.count()) == (1, 1)
    assert side.state(customer).status == SyncState.Status.IN_SYNC


@pytest.mark.feature("G2")
def test_it_takes_over_an_unlinked_row_of_the_record_it_created(side: Side) -> None:
    customer = customer_create(name="Ada")
    side.poke()

    def hear_stripped(call: Call) -> None:
        # Somebody removed our id at once, and that message came first.
        if call.method == "create" and side.world.messages:
            for message in side.world.messages:
                message.update(reference="", key="")
            side.hear()

    side.world.after.append(hear_stripped)

    side.sync(customer)

    assert SyncState.objects.count() == 1
    assert side.state(customer).remote_id == side.world.living()[0].remote_id
