"""Kinds of operations: what an app says of a long action of its own, and the registry of them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

from django.urls import reverse

from operations.models import ItemState, Operation
from operations.scopes import Scope

LARGEST_BATCH: Final = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What an operation would do, counted and not done.

    Attributes:
        eligible: items that it would act upon.
        ineligible: how many of what was named it would leave alone, by why, in a few words each.
        sample: keys of some of the eligible ones, for a person to look at.
    """

    eligible: int
    ineligible: Mapping[str, int] = field(default_factory=dict)
    sample: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class NewItem:
    """An item to be written down.

    Attributes:
        key: which thing; unique within the operation, 255 characters at most.
        data: JSON that ``carry_out`` needs besides; nothing that must be erasable.
    """

    key: str
    data: Any = None


@dataclass(frozen=True, slots=True)
class ItemsQuery:
    """Items as SQL, for kinds whose items are rows.

    Attributes:
        sql: SELECT of ``key`` (text) and ``data`` (jsonb), ordered, of at most ``%(limit)s`` rows after the key
            ``%(after)s``, by an index.
        parameters: the other parameters.
    """

    sql: str
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Item:
    """An item to be carried out.

    Attributes:
        id: its row.
        key: which thing.
        data: as it was written down.
        attempt: 1, or more when a worker died while it had it.
        uid: the same at every attempt and different from all others; fit for an idempotency key.
    """

    id: int
    key: str
    data: Any
    attempt: int
    uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Some items to be carried out together.

    Attributes:
        operation_id: of which operation.
        filter: its frozen filter.
        actor: who planned it.
        reason: why.
        items: in the order in which they were written down.
        ends: ``time.monotonic()`` by when the call must have ended.
    """

    operation_id: int
    filter: Mapping[str, Any]
    actor: str
    reason: str
    items: Sequence[Item]
    ends: float

    def remaining(self) -> float:
        """Seconds left for the call."""
        return max(0.0, self.ends - time.monotonic())


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one item; made by the functions below.

    Attributes:
        item_id: which item.
        state: succeeded, skipped, failed, or waiting for an end that ``follow`` will tell.
        code: stable word for programs.
        message: one sentence for a person.
        then: items that are to follow; written down in the transaction of the outcome.
    """

    item_id: int
    state: ItemState
    code: str = ""
    message: str = ""
    then: tuple[NewItem, ...] = ()


def succeeded(item: Item, message: str = "", *, then: Sequence[NewItem] = ()) -> Outcome:
    """It is done.

    Args:
        then: what turned out to be done next, such as the next page of a list whose length nobody knows.
    """
    return Outcome(item.id, ItemState.SUCCEEDED, "", message, tuple(then))


def skipped(item: Item, code: str, message: str = "") -> Outcome:
    """There was nothing to do, or no longer."""
    return Outcome(item.id, ItemState.SKIPPED, code, message)


def failed(item: Item, code: str, message: str = "") -> Outcome:
    """It could not be done."""
    return Outcome(item.id, ItemState.FAILED, code, message)


def waiting(item: Item) -> Outcome:
    """It is under way elsewhere; ``Kind.follow`` will tell how it ends."""
    return Outcome(item.id, ItemState.WAITING)


class Kind:
    """A kind of operation. Apps subclass it and give an instance to ``register`` in their ``ready()``.

    Attributes:
        name: as ``outbox.replay``.
        title: what it does, for people, as an imperative.
        permission: Django permission that a person needs to plan, start or resume one, as ``outbox.replay_delivery``.
        scope: the same for a program's API key.
        transactional: ``carry_out`` runs in the transaction that records the outcomes. All it does is database work;
            effect and outcome commit together, exactly once. Otherwise it runs outside of any transaction, after its
            items were marked as started.
        repeatable: for kinds that are not transactional: whether an item may be carried out again when its worker died
            before the outcome was recorded (``Item.uid`` stays the same). If not, such an item fails with
            ``outcome_unknown`` and is left to a person.
        batch_size: items at a time, at most. Fewer are given as long as a batch takes longer than half a second, so
            that pause works at once.
        call_seconds: the longest that one call may take; within it the lease is sure to last.
        before_first: the key that comes before all others, for ``%(after)s``; ``"0"`` where keys are numbers.
        most_waiting: no batch is begun while so many items wait elsewhere.
        filter_keys: what a filter may name, and what each key means, for people.
        filter_example: a filter that is well-formed.
        item_page: address in the console, by name, of what an item's key names; empty where it names no page.
        grows: items may name others that follow (``Outcome.then``); the plan's count is a guess until the end.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    permission: ClassVar[str]
    scope: ClassVar[Scope] = Scope.OPERATIONS_WRITE
    transactional: ClassVar[bool] = True
    repeatable: ClassVar[bool] = False
    batch_size: ClassVar[int] = 100
    call_seconds: ClassVar[float] = 20.0
    before_first: ClassVar[str] = ""
    most_waiting: ClassVar[int] = 2_000
    filter_keys: ClassVar[Mapping[str, str]] = {}
    filter_example: ClassVar[Mapping[str, Any]] = {}
    item_page: ClassVar[str] = ""
    grows: ClassVar[bool] = False

    def freeze(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The filter as JSON, validated, with whatever pins it down (such as the highest id there is now).

        Raises:
            rest_framework.exceptions.ValidationError: it is none, by field.
        """
        raise NotImplementedError

    def plan(self, frozen: Mapping[str, Any]) -> Plan:
        """Count what the filter matches, writing nothing. It runs within a request."""
        raise NotImplementedError

    def under_way(self, frozen: Mapping[str, Any]) -> Operation | None:
        """An operation that was begun, is not over and does just the same, where no second one may begin beside it."""
        return None

    def items_query(self, frozen: Mapping[str, Any]) -> ItemsQuery | None:
        """The items as SQL; None for kinds that implement ``items``."""
        return None

    def items(self, frozen: Mapping[str, Any], *, after: str, limit: int) -> Sequence[NewItem]:
        """The next items in order, for kinds that cannot say them as SQL; fewer than ``limit`` are the last ones."""
        raise NotImplementedError

    def carry_out(self, batch: Batch) -> Sequence[Outcome]:
        """Act upon the items, each of which may have changed since it was written down.

        What it raises is not blamed on the batch: its items are carried out one by one then, and the one that raises
        fails with the name of the exception as its code. Database trouble blames nobody; the batch is repeated.

        Returns:
            One outcome for each item.
        """
        raise NotImplementedError

    def follow(self, batch: Batch) -> Sequence[Outcome]:
        """Outcomes of those items that waited elsewhere and have ended; it only looks. The others are left out."""
        raise NotImplementedError

    def item_url(self, key: str) -> str:
        """The page of what an item's key names; empty where there is none."""
        return reverse(self.item_page, args=[key]) if self.item_page else ""

    def result(self, operation: Operation) -> dict[str, Any]:
        """What came of it so far, in the words of the kind; beside the counts of items, which are kept anyway."""
        return {}


_kinds: Final[dict[str, Kind]] = {}


def register(kind: Kind) -> None:
    """Add a kind; the same name again replaces it."""
    if not 0 < kind.batch_size <= LARGEST_BATCH:
        raise ValueError(f"{kind.name}: batch_size must be from 1 to {LARGEST_BATCH}")
    _kinds[kind.name] = kind


def unregister(name: str) -> None:
    """Take a kind away."""
    _kinds.pop(name, None)


def kinds() -> list[Kind]:
    """All kinds, by name."""
    return [_kinds[name] for name in sorted(_kinds)]


def kind_named(name: str) -> Kind | None:
    """The kind of that name, or None."""
    return _kinds.get(name)
