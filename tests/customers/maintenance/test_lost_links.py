"""A customer whose link was lost, as by a restored backup: a comparison makes no second record of it there."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.management import CommandError, call_command

from customers.models import Conflict, Customer, Drift, SyncRequest, SyncState
from customers.services import customer_create
from tests.customers.maintenance.conftest import linked, reconcile, run, unheard
from tests.customers.stripe.conftest import StripeSide

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.feature("G1", "C4", "C7")]


def forgotten(both: StripeSide, **fields: Any) -> tuple[Customer, str]:
    """A customer that is on both sides, of whose record nothing is known here any more; and the id of that record."""
    customer, remote_id = linked(both, **fields)
    unheard(both)
    SyncRequest.objects.filter(state__customer=customer).delete()
    SyncState.objects.filter(customer=customer).update(remote_id=None, base=None, base_hash="")
    return customer, remote_id


@pytest.mark.parametrize("words", [[], ["--only", "missing_there"]])
def test_it_asks_for_the_link_and_creates_nothing_beside_it(both: StripeSide, words: list[str]) -> None:
    ada, remote_id = forgotten(both, name="Ada")

    status, result = reconcile(*words)
    both.rest()

    assert (status, result["differences"]) == (3, {"unlinked": 1})
    assert list(both.sandbox.customers) == [remote_id]
    proposal = Drift.objects.open().get()
    assert (proposal.customer_id, proposal.remote_id, proposal.repair) == (ada.pk, remote_id, "link")


def test_it_waits_for_what_is_put_off(both: StripeSide) -> None:
    """Whose record it is turns out late: until then nobody is called missing there."""
    _, remote_id = forgotten(both, name="Ada")
    both.sandbox.faults.add(route="GET /v1/customers/*", status=500, times=3)

    _, result = reconcile()
    both.rest()

    assert result["differences"] == {"unlinked": 1}
    assert list(both.sandbox.customers) == [remote_id]


def test_accepted_it_is_linked_again(both: StripeSide) -> None:
    ada, remote_id = forgotten(both, name="Ada")
    reconcile()

    status, _ = run("drift", "accept", str(Drift.objects.open().get().pk))
    both.rest()

    assert status == 0
    assert (both.state(ada).remote_id, both.state(ada).status) == (remote_id, "in_sync")
    assert list(both.sandbox.customers) == [remote_id]


def test_declined_it_is_created_there(both: StripeSide) -> None:
    ada, remote_id = forgotten(both, name="Ada")
    reconcile()
    run("drift", "decline", str(Drift.objects.open().get().pk))

    status, result = reconcile()
    both.rest()

    assert (status, result["differences"]) == (0, {"missing_there": 1})
    assert both.state(ada).remote_id not in (None, remote_id)


def test_a_proposal_to_create_it_ends_when_one_to_link_it_is_found(both: StripeSide) -> None:
    ada = customer_create(name="Ada")
    both.events()
    reconcile("--dry-run")
    missing = Drift.objects.open().get()
    record = both.sandbox.customer_add(name="Ada", metadata={"zenskar_id": str(ada.pk)})
    unheard(both)

    reconcile("--dry-run")
    with pytest.raises(CommandError, match="not there any more"):
        call_command("drift", "accept", str(missing.pk))
    both.rest()

    assert Drift.objects.open().get().repair == "link"
    assert list(both.sandbox.customers) == [record["id"]]


def test_a_message_about_it_makes_no_second_customer_here(both: StripeSide) -> None:
    ada, remote_id = forgotten(both, name="Ada")

    both.sandbox.customer_edit(remote_id, phone="1")
    both.rest()
    asked = Conflict.objects.open().get()
    reconcile()
    run("drift", "accept", str(Drift.objects.open().get().pk))
    both.rest()

    ada.refresh_from_db()
    assert (asked.kind, asked.ours) == ("names_another", {"customer_id": str(ada.pk)})
    assert list(Customer.objects.values_list("pk", flat=True)) == [ada.pk]
    assert (both.state(ada).remote_id, ada.phone) == (remote_id, "1")
    assert not Conflict.objects.exists()
    assert SyncState.objects.count() == 1


def test_a_copy_becomes_a_customer_when_the_id_is_taken_out_of_it(both: StripeSide) -> None:
    ada = customer_create(name="Ada")
    both.events()
    copy = both.sandbox.customer_add(name="Bob", metadata={"zenskar_id": str(ada.pk)})
    both.rest()
    assert Conflict.objects.open().get().kind == "names_another"

    both.sandbox.customer_edit(copy["id"], metadata={"zenskar_id": ""})
    both.rest()

    assert set(Customer.objects.values_list("name", flat=True)) == {"Ada", "Bob"}
    assert not Conflict.objects.open().exists()
