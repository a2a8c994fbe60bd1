"""One customer, two sides: what is sent, what is pulled, what is left alone."""

from __future__ import annotations

import pytest
from pytest_django import Settings

from customers.models import Conflict, Customer, SyncRequest, SyncState
from customers.services import customer_create, customer_delete, customer_update
from customers.sync.engine import Outcome, sync_once
from tests.customers.sync.conftest import Side, customer_of
from tests.customers.sync.memory import MemoryIntegration

pytestmark = pytest.mark.django_db

Status = SyncState.Status


@pytest.mark.feature("G1")
def test_it_creates_a_customer_there_once(side: Side) -> None:
    customer = customer_create(name="Ada", email="ada@example.com", metadata={"plan": "gold"})

    side.rest()
    side.rest()

    state = side.state(customer)
    assert [call.method for call in side.world.writes()] == ["create"]
    assert side.remote(customer) == {"name": "Ada", "email": "ada@example.com", "metadata.plan": "gold"}
    assert state.status == Status.IN_SYNC
    assert state.base == side.remote(customer)
    assert state.last_success_at is not None


@pytest.mark.feature("G1")
def test_it_sends_only_what_changed_here(side: Side) -> None:
    customer = side.linked(name="Ada", email="ada@example.com", metadata={"plan": "gold", "seat": "1"})
    side.world.calls.clear()

    customer_update(customer_id=customer.pk, changes={"name": "Ada L.", "metadata": {"plan": "gold"}})
    side.rest()

    request = SyncRequest.objects.latest("id")
    assert request.body == {"name": "Ada L.", "metadata.seat": None}
    assert side.remote(customer) == {"name": "Ada L.", "email": "ada@example.com", "metadata.plan": "gold"}
    assert len(side.world.writes()) == 1


@pytest.mark.feature("G2")
def test_it_pulls_what_changed_there_and_publishes_it_with_its_origin(side: Side) -> None:
    customer = side.linked(name="Ada", email="ada@example.com")
    side.world.edit(side.state(customer).remote_id or "", name="Ada Lovelace")

    side.hear()
    side.sync(customer)

    customer.refresh_from_db()
    (event,) = side.events()
    assert customer.name == "Ada Lovelace"
    assert event.origin == "memory"
    assert event.payload["changed"] == ["name"]


@pytest.mark.feature("G3")
def test_it_makes_no_call_for_what_came_from_there(side: Side) -> None:
    customer = side.linked(name="Ada")
    side.world.edit(side.state(customer).remote_id or "", name="Ada Lovelace")
    side.rest()
    side.world.calls.clear()
    written = side.events()

    for _ in range(5):
        side.rest()

    assert written == []
    assert side.world.calls == []


@pytest.mark.feature("G3")
def test_it_neither_sends_nor_publishes_when_it_looks_again_without_a_difference(side: Side) -> None:
    customer = side.linked(name="Ada", address={"city": "Turin"})
    side.world.calls.clear()

    SyncState.objects.look_again()
    side.sync(customer)

    assert [call.method for call in side.world.calls] == ["retrieve"]
    assert side.events() == []


@pytest.mark.feature("G3")
def test_it_does_not_even_look_at_the_echo_of_its_own_push(side: Side) -> None:
    customer = side.linked(name="Ada")
    customer_update(customer_id=customer.pk, changes={"name": "Ada L."})
    side.poke()
    side.sync(customer)
    side.world.calls.clear()

    heard = side.hear()

    assert heard == 1
    assert side.dirty() == []
    assert side.world.calls == []


@pytest.mark.feature("G4")
def test_it_merges_edits_of_different_fields_on_both_sides(side: Side) -> None:
    customer = side.linked(name="Ada", phone="1", metadata={"a": "1", "b": "1"})
    customer_update(customer_id=customer.pk, changes={"name": "Ada L.", "metadata": {"a": "2", "b": "1"}})
    side.world.edit(side.state(customer).remote_id or "", phone="2", **{"metadata.b": "2"})

    side.rest()

    customer.refresh_from_db()
    assert (customer.name, customer.phone, customer.metadata) == ("Ada L.", "2", {"a": "2", "b": "2"})
    assert side.remote(customer) == {"name": "Ada L.", "phone": "2", "metadata.a": "2", "metadata.b": "2"}
    assert side.state(customer).status == Status.IN_SYNC


@pytest.mark.feature("G4")
def test_it_shows_a_collision_to_a_person_and_still_syncs_the_rest(side: Side) -> None:
    customer = side.linked(name="Ada", phone="1")
    customer_update(customer_id=customer.pk, changes={"name": "Here", "phone": "2"})
    side.world.edit(side.state(customer).remote_id or "", name="There")

    side.rest()
    SyncState.objects.look_again()
    side.rest()

    conflict = Conflict.objects.get()
    customer.refresh_from_db()
    assert (conflict.field, conflict.base, conflict.ours, conflict.theirs) == ("name", "Ada", "Here", "There")
    assert customer.name == "Here"
    assert side.remote(customer) == {"name": "There", "phone": "2"}
    assert side.state(customer).status == Status.CONFLICT


@pytest.mark.feature("G4")
def test_it_closes_a_conflict_when_one_side_gives_in(side: Side) -> None:
    customer = side.linked(name="Ada")
    customer_update(customer_id=customer.pk, changes={"name": "Here"})
    side.world.edit(side.state(customer).remote_id or "", name="There")
    side.rest()

    customer_update(customer_id=customer.pk, changes={"name": "There"})
    side.rest()

    conflict = Conflict.objects.get()
    assert (conflict.status, conflict.resolution) == (Conflict.Status.RESOLVED, "converged")
    assert side.state(customer).status == Status.IN_SYNC
    assert side.state(customer).base == {"name": "There"}


@pytest.mark.feature("G4")
@pytest.mark.parametrize(("owner", "name"), [("local", "Here"), ("remote", "There")])
def test_it_lets_the_owner_of_a_field_win(side: Side, settings: Settings, owner: str, name: str) -> None:
    settings.SYNC_FIELD_OWNER = {"name": owner}
    customer = side.linked(name="Ada")
    customer_update(customer_id=customer.pk, changes={"name": "Here"})
    side.world.edit(side.state(customer).remote_id or "", name="There")

    side.rest()

    customer.refresh_from_db()
    assert customer.name == name
    assert side.remote(customer) == {"name": name}
    assert not Conflict.objects.exists()


@pytest.mark.feature("G1")
def test_it_deletes_there_what_was_deleted_here(side: Side) -> None:
    customer = side.linked(name="Ada")

    customer_delete(customer_id=customer.pk)
    side.rest()

    assert side.world.living() == []
    assert side.state(customer).status == Status.DELETED


@pytest.mark.feature("G1")
def test_it_sends_nothing_for_a_customer_deleted_before_it_was_ever_pushed(side: Side) -> None:
    customer = customer_create(name="Ada")
    customer_delete(customer_id=customer.pk)

    side.rest()

    assert side.world.calls == []
    assert side.state(customer).status == Status.DELETED


@pytest.mark.feature("G1")
def test_it_refuses_to_delete_there_what_has_something_live(side: Side) -> None:
    customer = side.linked(name="Ada")
    remote_id = side.state(customer).remote_id or ""
    side.world.obstacles[remote_id] = "Deleting it would cancel 1 live subscription(s): sub_1."

    customer_delete(customer_id=customer.pk)
    side.rest()

    assert len(side.world.living()) == 1
    assert side.state(customer).status == Status.CONFLICT
    assert Conflict.objects.get().kind == Conflict.Kind.DELETE_REFUSED


@pytest.mark.feature("G1")
def test_it_deletes_there_once_the_obstacle_is_gone(side: Side) -> None:
    customer = side.linked(name="Ada")
    remote_id = side.state(customer).remote_id or ""
    side.world.obstacles[remote_id] = "live"
    customer_delete(customer_id=customer.pk)
    side.rest()

    del side.world.obstacles[remote_id]
    SyncState.objects.look_again()
    side.rest()

    assert side.world.living() == []
    assert Conflict.objects.get().status == Conflict.Status.RESOLVED
    assert side.state(customer).status == Status.DELETED


@pytest.mark.feature("G1")
def test_it_leaves_the_remote_record_alone_under_unlink(side: Side) -> None:
    MemoryIntegration.policy = "unlink"
    customer = side.linked(name="Ada")

    customer_delete(customer_id=customer.pk)
    side.rest()
    side.world.edit(side.state(customer).remote_id or "", name="Still there")
    side.rest()

    assert len(side.world.living()) == 1
    assert Customer.objects.count() == 1
    assert side.state(customer).status == Status.DELETED


@pytest.mark.feature("G2")
def test_it_deletes_here_what_was_deleted_there(side: Side) -> None:
    customer = side.linked(name="Ada")

    side.world.remove(side.state(customer).remote_id or "")
    side.rest()

    customer.refresh_from_db()
    assert customer.deleted_at is not None
    assert side.state(customer).status == Status.DELETED
    assert [call.method for call in side.world.writes()] == ["create"]


@pytest.mark.feature("G2")
def test_it_asks_a_person_about_a_remote_deletion_under_conflict(side: Side) -> None:
    MemoryIntegration.remote_policy = "conflict"
    customer = side.linked(name="Ada")

    side.world.remove(side.state(customer).remote_id or "")
    side.rest()

    customer.refresh_from_db()
    assert customer.deleted_at is None
    assert Conflict.objects.get().kind == Conflict.Kind.REMOTE_DELETED


@pytest.mark.feature("C7")
def test_it_deletes_nothing_because_a_remote_id_is_unknown(side: Side) -> None:
    customer = side.linked(name="Ada")
    side.world.records.clear()

    SyncState.objects.look_again()
    side.sync(customer)

    customer.refresh_from_db()
    assert customer.deleted_at is None
    assert side.state(customer).status == Status.ORPHANED


@pytest.mark.feature("G2")
def test_it_imports_a_customer_that_was_created_there(side: Side) -> None:
    record = side.world.add(name="Grace", email="grace@example.com", **{"metadata.plan": "gold"})

    side.rest()

    customer = customer_of(record.remote_id)
    assert (customer.name, customer.email, customer.metadata) == ("Grace", "grace@example.com", {"plan": "gold"})
    assert side.state(customer).status == Status.IN_SYNC
    assert side.world.writes() == []


@pytest.mark.feature("G2")
def test_it_keeps_a_remote_customer_with_a_taken_email_apart(side: Side) -> None:
    mine = side.linked(name="Grace", email="grace@example.com")
    other = side.world.add(name="Another Grace", email="Grace@Example.com")

    side.rest()

    state = SyncState.objects.get(remote_id=other.remote_id)
    conflict = Conflict.objects.get()
    assert (state.customer_id, state.status) == (None, Status.ORPHANED)
    assert (conflict.kind, conflict.ours) == (Conflict.Kind.EMAIL_TAKEN, {"customer_id": str(mine.pk)})
    assert Customer.objects.count() == 1


@pytest.mark.feature("G2")
def test_it_keeps_the_other_fields_when_a_pulled_email_is_taken(side: Side) -> None:
    side.linked(name="Grace", email="grace@example.com")
    customer = side.linked(name="Ada", email="ada@example.com")
    side.world.edit(side.state(customer).remote_id or "", email="grace@example.com", name="Ada L.")

    side.rest()

    customer.refresh_from_db()
    assert (customer.name, customer.email) == ("Ada L.", "ada@example.com")
    assert Conflict.objects.get().kind == Conflict.Kind.EMAIL_TAKEN
    assert side.remote(customer)["email"] == "grace@example.com"


@pytest.mark.feature("G2")
def test_it_shows_a_value_that_the_catalogue_cannot_hold(side: Side) -> None:
    customer = side.linked(name="Ada", phone="1")
    side.world.edit(side.state(customer).remote_id or "", phone="9" * 40, name="Ada L.")

    side.rest()

    customer.refresh_from_db()
    conflict = Conflict.objects.get()
    assert (customer.name, customer.phone) == ("Ada L.", "1")
    assert (conflict.kind, conflict.field) == (Conflict.Kind.REFUSED_HERE, "phone")


def test_it_leaves_a_row_alone_that_another_worker_holds(side: Side) -> None:
    customer = customer_create(name="Ada")
    side.poke()
    SyncState.objects.update(lease_until="2999-01-01T00:00:00Z", lease_token=7)

    outcome = side.sync(customer)

    assert outcome is Outcome.NOT_TAKEN
    assert side.world.calls == []


def test_it_stays_dirty_when_it_was_poked_meanwhile(side: Side) -> None:
    customer = side.linked(name="Ada")
    SyncState.objects.look_again()

    sync_once(
        side.state(customer).pk,
        on_step=lambda name: SyncState.objects.look_again() if name == "fetched" else None,
    )

    assert [state.customer_id for state in side.dirty()] == [customer.pk]


@pytest.mark.feature("C1")
def test_it_fetches_again_when_the_customer_changed_during_the_fetch(side: Side) -> None:
    customer = side.linked(name="Ada")
    SyncState.objects.look_again()
    edits = iter([{"name": "Ada L."}])

    def edit(step: str) -> None:
        if step == "fetched" and (changes := next(edits, None)):
            customer_update(customer_id=customer.pk, changes=changes)

    sync_once(side.state(customer).pk, on_step=edit)

    assert [call.method for call in side.world.calls[-3:]] == ["retrieve", "retrieve", "update"]
    assert side.remote(customer) == {"name": "Ada L."}


def test_it_fails_for_good_when_the_state_belongs_to_another_account(side: Side) -> None:
    customer = side.linked(name="Ada")
    SyncState.objects.update(account="acct_other")
    SyncState.objects.look_again()
    side.world.calls.clear()

    side.sync(customer)

    state = side.state(customer)
    assert (state.status, state.last_error_code) == (Status.FAILED, "other_account")
    assert (state.dirty_at, side.world.calls) == (None, [])


def test_it_never_finishes_a_request_in_another_account(side: Side) -> None:
    customer = customer_create(name="Ada")
    side.poke()
    side.world.lose_answers(1, method="create")
    side.sync(customer)
    SyncState.objects.update(account="acct_other")
    calls = len(side.world.calls)

    side.sync(customer)

    assert side.state(customer).last_error_code == "other_account"
    assert len(side.world.calls) == calls
    assert SyncRequest.objects.in_flight().count() == 1


def test_it_moves_what_was_never_sent_to_the_account_of_the_key(side: Side) -> None:
    """Customers that were created before a key was configured."""
    customer = customer_create(name="Ada")
    side.poke()
    SyncState.objects.update(livemode=True)

    side.sync(customer)

    state = side.state(customer)
    assert (state.status, state.livemode) == (Status.IN_SYNC, False)
    assert len(side.world.living()) == 1


@pytest.mark.feature("C1")
@pytest.mark.parametrize("step", ["taken", "fetched", "decided", "answered"])
def test_it_lets_a_worker_that_was_overtaken_write_nothing(side: Side, step: str) -> None:
    """It slept past its lease with an old picture of the other side; somebody else did the work meanwhile."""
    customer = side.linked(name="Ada")
    customer_update(customer_id=customer.pk, changes={"name": "Ada L."})
    side.poke()
    pk = side.state(customer).pk
    written: list[dict[str, object]] = []

    def overtaken(reached: str) -> None:
        if reached == step and not written:
            SyncState.objects.update(lease_until="2020-01-01T00:00:00Z")
            assert sync_once(pk) is Outcome.DONE
            written.append(SyncState.objects.values().get())

    outcome = sync_once(pk, on_step=overtaken)

    customer.refresh_from_db()
    assert outcome is Outcome.LEASE_LOST
    assert written == [SyncState.objects.values().get()]
    assert customer.name == "Ada L."
    assert side.remote(customer) == {"name": "Ada L."}
    assert len([call for call in side.world.writes() if call.method == "update" and call.changed]) == 1
