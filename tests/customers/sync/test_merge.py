"""The merge on every combination that hypothesis can think of."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from customers.integrations import Fields
from customers.sync.fields import customer_changes, customer_fields, fields_advance, fields_hash, fields_make
from customers.sync.merge import Merge, Owner, merge
from tests.customers.sync.interleaver import ROOTS

values = st.sampled_from(["a", "b", "c"])
sides = st.dictionaries(st.sampled_from(["name", "phone", "metadata.x", "metadata.y"]), values)
owners: st.SearchStrategy[Owner] = st.sampled_from(["local", "remote", "person"])

# A machine that is busy with other things says nothing of the merge.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def applied(fields: Fields, changes: dict[str, object]) -> Fields:
    return fields_advance(fields, changes, changes)  # type: ignore[arg-type]


def merged(base: Fields | None, ours: Fields, theirs: Fields, owner: Owner) -> tuple[Merge, Fields, Fields]:
    plan = merge(base=base, ours=ours, theirs=theirs, owner=lambda field: owner)
    return plan, applied(ours, dict(plan.pulled)), applied(theirs, dict(plan.pushed))


@pytest.mark.feature("G4")
@unhurried
@given(st.none() | sides, sides, sides, owners)
def test_it_makes_both_sides_the_same_but_for_conflicts(
    base: Fields | None, ours: Fields, theirs: Fields, owner: Owner
) -> None:
    plan, ours_after, theirs_after = merged(base, ours, theirs, owner)

    differing = {
        name for name in ours_after.keys() | theirs_after.keys() if ours_after.get(name) != theirs_after.get(name)
    }
    assert differing == {conflict.field for conflict in plan.conflicts}
    assert owner == "person" or not plan.conflicts


@pytest.mark.feature("G4")
@unhurried
@given(sides, sides, sides, owners)
def test_it_keeps_every_change_that_one_side_alone_made(
    base: Fields, ours: Fields, theirs: Fields, owner: Owner
) -> None:
    _, ours_after, theirs_after = merged(base, ours, theirs, owner)

    for name in base.keys() | ours.keys() | theirs.keys():
        if theirs.get(name) == base.get(name):
            assert ours_after.get(name) == theirs_after.get(name) == ours.get(name)
        elif ours.get(name) == base.get(name):
            assert ours_after.get(name) == theirs_after.get(name) == theirs.get(name)


@pytest.mark.feature("G4")
@unhurried
@given(sides, sides, sides)
def test_it_leaves_both_values_where_they_are_in_a_conflict(base: Fields, ours: Fields, theirs: Fields) -> None:
    plan, ours_after, theirs_after = merged(base, ours, theirs, "person")

    for conflict in plan.conflicts:
        assert ours_after.get(conflict.field) == conflict.ours == ours.get(conflict.field)
        assert theirs_after.get(conflict.field) == conflict.theirs == theirs.get(conflict.field)
        assert conflict.base == base.get(conflict.field)


@pytest.mark.feature("G3")
@unhurried
@given(sides, owners)
def test_it_does_nothing_without_a_difference(fields: Fields, owner: Owner) -> None:
    plan, _, _ = merged(fields, dict(fields), dict(fields), owner)

    assert plan == Merge()


@pytest.mark.feature("G3")
@unhurried
@given(st.none() | sides, sides, sides, owners)
def test_it_has_nothing_left_to_do_the_second_time(
    base: Fields | None, ours: Fields, theirs: Fields, owner: Owner
) -> None:
    plan, ours_after, theirs_after = merged(base, ours, theirs, owner)
    moved = {**plan.agreed, **plan.pulled, **plan.pushed}
    base_after = fields_advance(base, moved, moved)

    again, _, _ = merged(base_after, ours_after, theirs_after, owner)

    assert (again.pushed, again.pulled, again.agreed) == ({}, {}, {})
    assert [conflict.field for conflict in again.conflicts] == [conflict.field for conflict in plan.conflicts]


texts = st.text(min_size=0, max_size=5)


@pytest.mark.feature("G4")
@unhurried
@given(texts, st.dictionaries(st.sampled_from(["city", "line1"]), texts), st.dictionaries(texts, texts, max_size=3))
def test_it_brings_fields_to_a_customer_and_back_unchanged(
    name: str, address: dict[str, str], metadata: dict[str, str]
) -> None:
    from customers.models import Customer

    fields = fields_make(name=name, address=address, metadata=metadata)

    customer = Customer()
    for field, value in customer_changes(customer, fields).items():
        setattr(customer, field, value)

    assert customer_fields(customer, ROOTS) == fields
    assert fields_hash(fields) == fields_hash(dict(reversed(fields.items())))
    assert "\x00" not in repr(list(fields.values()))
