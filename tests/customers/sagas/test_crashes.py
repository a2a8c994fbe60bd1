"""Whoever dies at whatever boundary is followed by another worker, and what the other side received stays right."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from customers.models import Customer, Saga, SyncState
from customers.sagas.beginning import Wanted, saga_begin
from customers.sagas.running import saga_run
from outbox.models import StoredEvent
from tests.customers.sagas.conftest import SecondIntegration, nothing_is_left, work_on
from tests.customers.sagas.test_refused import refuses
from tests.customers.sync.conftest import Died, Side
from tests.customers.sync.memory import World

pytestmark = [pytest.mark.feature("C5", "C11"), pytest.mark.django_db(transaction=True)]

Action = Saga.Action


class DiesAt:
    """Kills the worker at its n-th boundary, and remembers the names of all that it saw."""

    def __init__(self, number: int) -> None:
        self.number, self.names = number, []

    def __call__(self, name: str) -> None:
        self.names.append(name)
        if len(self.names) == self.number:
            raise Died(name)


def every_boundary(begin: Callable[[int], Wanted], *, since: str = "begun") -> Iterator[tuple[str, Saga]]:
    """One saga for each boundary that such a saga has, died at there and finished by others.

    Args:
        since: name of the first of them; those before are another test's.
    """
    whole = DiesAt(0)
    saga_run(saga_begin(begin(0)), on_step=whole)
    numbers = range(whole.names.index(since) + 1, len(whole.names) + 1)
    assert len(numbers) > 5
    for number in numbers:
        lease = saga_begin(begin(number))
        dies = DiesAt(number)
        with pytest.raises(Died):
            saga_run(lease, on_step=dies)
        work_on()
        yield dies.names[-1], Saga.objects.get(pk=lease.saga_id)


def test_a_create_is_done_once(side: Side) -> None:
    for name, saga in every_boundary(lambda n: Wanted(action=Action.CREATE, values={"name": f"Ada {n}"})):
        reference = str(saga.customer_id)
        assert saga.status == "done", name
        assert len([record for record in side.world.living() if record.reference == reference]) == 1, name
        assert Customer.objects.filter(pk=saga.customer_id).count() == 1, name
        assert StoredEvent.objects.filter(aggregate_id=reference).count() == 1, name
    assert len(side.world.records) == Customer.objects.count()
    nothing_is_left()


def test_a_refused_create_is_undone(side: Side, second: World) -> None:
    refuses(second, "create")
    wanted = Wanted(action=Action.CREATE, values={"name": "Ada"})

    for name, saga in every_boundary(lambda n: wanted, since="turned back"):
        assert saga.status == "undone", name
        assert side.world.living() == second.living() == [], name
        assert not Customer.objects.exists(), name
    side.rest()
    assert not Customer.objects.exists()
    assert not StoredEvent.objects.exists()
    nothing_is_left()


def test_an_update_is_sent_once(side: Side) -> None:
    customer = side.linked(name="Ada")
    side.rest()

    def begin(n: int) -> Wanted:
        return Wanted(action=Action.UPDATE, customer_id=customer.pk, values={"name": f"Ada {n}", "phone": str(n)})

    for name, saga in every_boundary(begin):
        customer.refresh_from_db()
        fields = {"name": customer.name, "phone": customer.phone}
        assert saga.status == "done", name
        assert customer.name == f"Ada {customer.phone}"
        assert [record.fields for record in side.world.living()] == [fields], name
    changes = Saga.objects.count()
    assert customer.version == changes + 1
    assert len([call for call in side.world.writes() if call.changed]) == changes + 1
    nothing_is_left()


def test_a_refused_update_is_put_back(side: Side, second: World) -> None:
    customer = side.linked(name="Ada")
    side.rest()
    refuses(second, "update")

    def begin(n: int) -> Wanted:
        return Wanted(action=Action.UPDATE, customer_id=customer.pk, values={"name": f"Ada {n}"})

    for name, saga in every_boundary(begin, since="turned back"):
        customer.refresh_from_db()
        assert saga.status == "undone", name
        assert (customer.name, customer.version) == ("Ada", 1)
        assert [record.fields for record in (*side.world.living(), *second.living())] == [{"name": "Ada"}] * 2, name
    nothing_is_left()


def test_a_deletion_is_done(side: Side, second: World) -> None:
    def begin(n: int) -> Wanted:
        return Wanted(action=Action.DELETE, customer_id=side.linked(name=f"Ada {n}").pk)

    # Once the first record is gone there is no way back.
    for name, saga in every_boundary(begin, since="remote memory done"):
        assert saga.status == "done", name
        assert side.world.living() == second.living() == [], name
        assert Customer.objects.get(pk=saga.customer_id).deleted_at is not None
        states = SyncState.objects.filter(customer=saga.customer_id)
        assert {state.status for state in states} == {"deleted"}, name
    for world in (side.world, second):
        assert len([call for call in world.calls if call.method == "delete" and call.changed]) == Saga.objects.count()
    nothing_is_left()


@pytest.mark.parametrize("lost", ["request", "answer"])
@pytest.mark.parametrize("action", [Action.CREATE, Action.UPDATE, Action.DELETE])
def test_what_was_lost_on_the_way_is_found_out(side: Side, action: Saga.Action, lost: str) -> None:
    customer = side.linked(name="Ada") if action != Action.CREATE else None
    values: dict[str, Any] = {} if action == Action.DELETE else {"name": "Eve"}
    (side.world.lose_requests if lost == "request" else side.world.lose_answers)(2, method=action.value)

    lease = saga_begin(Wanted(action=action, customer_id=customer.pk if customer else None, values=values))
    first = saga_run(lease)
    work_on()

    assert first is None
    assert Saga.objects.get().status == "done"
    assert [record.fields for record in side.world.living()] == ([] if action == Action.DELETE else [{"name": "Eve"}])
    changed = [call for call in side.world.writes() if call.changed and call.method == action.value]
    assert len(changed) == 1
    nothing_is_left()


def test_the_world_of_the_second_is_its_own(side: Side, second: World) -> None:
    side.linked(name="Ada")

    assert SecondIntegration.world is second
    assert len(side.world.living()) == len(second.living()) == 1
