"""Random lives of one customer on two sides, from a seed: edits, messages late, lost and twice, crashes, lost answers.

Each life begins in agreement and ends when everything was delivered; ``check`` then says what must hold whatever
happened in between. Every edit has a value of its own, so that a lost one shows.

Time is the life's own: a lease runs out, and an account that was closed after calls without an answer opens again,
when the life says so and not when the machine's clock does. So one seed is one life on any machine.
"""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Final

from django.db.models import Q

from customers.errors import CustomerDeleted
from customers.integrations import IntegrationError, Unreachable, integration_get
from customers.models import Conflict, Customer, SyncAccount, SyncRequest, SyncState
from customers.services import customer_create, customer_delete, customer_update
from customers.sync.engine import sync_once
from customers.sync.fields import customer_changes, customer_fields
from customers.sync.pokes import SyncPokes
from customers.sync.webhooks import webhook_store, webhooks_process_once
from outbox.events import Event
from outbox.subscribers import Deadline
from tests.customers.sync.conftest import Died, Side
from tests.customers.sync.memory import Call, World

FIELDS: Final = ("name", "phone", "metadata.a", "metadata.b")
ROOTS: Final = frozenset({"name", "email", "phone", "address", "metadata"})


@dataclass
class Life:
    """One random life."""

    seed: int
    side: Side
    steps: int
    edits: dict[str, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))
    trace: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.world: World = self.side.world
        self.events: list[Event] = []
        self.number = 0
        self.depth = 0
        self.deleted_here = self.deleted_there = self.lost = False
        self.tick = 0
        self.edited_at: dict[str, int] = {}
        self.fetched_at: dict[str, int] = {}
        self.overwritten: list[tuple[str, str, str]] = []
        self.seen_there: set[str] = set()
        self.told_of: list[Event] = []
        self.faults = [0, 0]
        self.patience = random.Random(f"{self.seed} waits")
        self.silent = False
        self.world.on_edit = self._watch
        self.world.before.append(lambda call: self._strike(call, 0))
        self.world.after.append(lambda call: self._strike(call, 1))

    def run(self) -> None:
        """Live."""
        SyncAccount.objects.update(closed_until=None, failures=0)
        self.customer = customer_create(name="start", metadata={"a": "start"})
        if self.random.random() < 0.5:
            self.side.rest()
        for _ in range(self.steps):
            self._act()
        self._calm()

    def _act(self) -> None:
        actions = [
            (5, self._edit_here),
            (5, self._edit_there),
            (4, self._deliver_pokes),
            (3, self._hear_one),
            (1, self._hear_twice),
            (1, self._lose_message),
            (1, self._lose_answer),
            (1, self._lose_request),
            (8, self._sync),
            (0.3, self._delete_here),
            (0.3, self._delete_there),
        ]
        weights, choices = zip(*actions, strict=True)
        (action,) = self.random.choices(choices, weights)
        self.trace.append(f"{'  ' * self.depth}{action.__name__}")
        action()

    def _stepper(self) -> Callable[[str], None]:
        """The step callback of one sync, which remembers when that sync had fetched what it decides upon."""
        fetched = [self.tick]

        def step(name: str) -> None:
            if name == "fetched":
                fetched[0] = self.tick
            if name == "decided":
                for request in SyncRequest.objects.in_flight().filter(state__in=SyncState.objects.filter(self._mine())):
                    self.fetched_at.setdefault(request.key, fetched[0])
            self._between(name)
            if name == "taken":
                fetched[0] = self.tick

        return step

    def _watch(self, key: str, before: Mapping[str, object], changes: Mapping[str, object]) -> None:
        """Every change there: by a stranger when it has no key, else by our push."""
        self.tick += 1
        for name, value in changes.items():
            self.seen_there.add(f"{name}={value}")
            if not key:
                self.edited_at[f"{name}={value}"] = self.tick
            elif f"{name}={before.get(name)}" in self.edited_at:
                self.overwritten.append((name, str(before.get(name)), key))

    def _between(self, step: str) -> None:
        """At a step boundary of a sync: life goes on, the worker dies, or another one takes its row."""
        chance = self.random.random()
        if chance < 0.08:
            self.trace.append(f"{'  ' * self.depth}died at {step}")
            raise Died(step)
        if chance < 0.34 and self.depth < 3:
            self.depth += 1
            if chance < 0.2:
                # Suspended past its lease: somebody else works on the row, then it goes on as if nothing happened.
                SyncState.objects.filter(self._mine()).update(lease_until="2020-01-01T00:00:00Z")
                self.trace.append(f"{'  ' * self.depth}overtaken at {step}")
                self._sync()
            else:
                self._act()
            self.depth -= 1

    def _edit_here(self) -> None:
        name = self.random.choice(FIELDS)
        self.number += 1
        value = f"here {self.number}"
        customer = Customer.objects.get(pk=self.customer.pk)
        try:
            customer_update(customer_id=customer.pk, changes=customer_changes(customer, {name: value}))
        except CustomerDeleted:
            return
        self.edits[name]["here"] = value

    def _edit_there(self) -> None:
        living = self._living()
        if living:
            name = self.random.choice(FIELDS)
            self.number += 1
            value = f"there {self.number}"
            self.world.edit(living[0], **{name: value})
            self.edits[name]["there"] = value

    def _delete_here(self) -> None:
        try:
            customer_delete(customer_id=self.customer.pk)
        except CustomerDeleted:
            return
        self.deleted_here = True

    def _delete_there(self) -> None:
        for remote_id in self._living():
            self.world.remove(remote_id)
            self.deleted_there = True

    def _deliver_pokes(self) -> None:
        self.events += self._new_events()
        if self.events:
            count = self.random.randint(1, len(self.events))
            SyncPokes().deliver(self.events[:count], Deadline.after(60))
            del self.events[:count]

    def _new_events(self) -> list[Event]:
        events = self.side.events()
        self.told_of += events
        return events

    def _hear_one(self, *, keep: bool = False) -> None:
        if self.world.messages:
            index = self.random.randrange(len(self.world.messages))
            message = self.world.messages[index]
            if not keep:
                del self.world.messages[index]
            integration = integration_get("memory")
            body = json.dumps(message).encode()
            webhook_store(integration, integration.webhook_verify(body=body, headers={"Signature": "good"}))
            webhooks_process_once()

    def _hear_twice(self) -> None:
        self._hear_one(keep=True)

    def _lose_message(self) -> None:
        if self.world.messages:
            self.lost = True
            del self.world.messages[self.random.randrange(len(self.world.messages))]

    def _lose_answer(self) -> None:
        self.faults[1] += 1

    def _lose_request(self) -> None:
        self.faults[0] += 1

    def _strike(self, call: Call, phase: int) -> None:
        if self.faults[phase] and call.method != "retrieve":
            self.faults[phase] -= 1
            self.silent = True
            self.trace.append(f"{'  ' * self.depth}{call.method} {('request', 'answer')[phase]} lost")
            raise Unreachable("planted")

    def _open(self) -> None:
        SyncAccount.objects.update(closed_until=None)

    def _sync(self) -> None:
        if self.depth == 0 and self.patience.random() < 0.8:
            self._open()
        states = list(SyncState.objects.filter(self._mine()).order_by("id"))
        self.random.shuffle(states)
        for state in states:
            SyncState.objects.filter(pk=state.pk).exclude(lease_until=None).filter(dirty_at=None).update(
                lease_until=None
            )
            if self.depth == 0:
                # Whoever held it has died: its time runs out.
                SyncState.objects.filter(pk=state.pk).update(lease_until=None)
            try:
                sync_once(state.pk, on_step=self._stepper())
            except (Died, SyncState.DoesNotExist):
                continue
            finally:
                if self.silent:
                    # Three calls in a row without an answer close the account; it opens when this life waits for it.
                    SyncAccount.objects.exclude(closed_until=None).update(closed_until="2100-01-01T00:00:00Z")
                    self.silent = False

    def _calm(self) -> None:
        """Everything is delivered and nothing fails any more; lost messages, and they alone, need a look at all."""
        self.faults = [0, 0]
        for _ in range(12):
            self._open()
            mine = SyncState.objects.filter(self._mine())
            mine.update(lease_until=None)
            self.events += self._new_events()
            SyncPokes().deliver(self.events, Deadline.after(60))
            self.events = []
            self.side.hear()
            if self.lost:
                mine.look_again()
                self.lost = False
            dirty = list(mine.filter(dirty_at__isnull=False))
            for state in dirty:
                sync_once(state.pk)
            self.events = self._new_events()
            if not dirty and not self.world.messages and not self.events:
                return
        raise AssertionError(self.told("It does not come to rest"))

    def _mine(self) -> Q:
        return Q(customer=self.customer) | Q(remote_id__in=list(self.world.records), integration="memory")

    def _living(self) -> list[str]:
        return [record.remote_id for record in self.world.living()]

    def told(self, what: str) -> str:
        return f"{what} (seed {self.seed}, {self.steps} steps):\n" + "\n".join(self.trace)

    def check(self) -> None:
        """What must hold at the end of any life."""
        self.customer.refresh_from_db()
        ours = [r for r in self.world.records.values() if r.reference == str(self.customer.pk)]
        created = [call for call in self.world.calls if call.method == "create" and call.changed]
        assert len(created) <= 1, self.told("A second remote customer")
        states = list(SyncState.objects.filter(self._mine()))
        assert len(states) == 1, self.told(f"{len(states)} states of one customer")
        (state,) = states
        assert not SyncRequest.objects.in_flight().filter(state=state).exists(), self.told("A request without an end")
        for call in self.world.writes():
            key_executed = call.changed or call.replayed or self._was_struck(call)
            assert key_executed or self._vanished(call), self.told(f"A call without a difference: {call}")
        self._check_overwritten()
        if self.deleted_here or self.deleted_there:
            assert self.customer.deleted_at is not None, self.told("Deleted there, alive here")
            assert not self._living(), self.told("Deleted here, alive there")
            assert state.status == SyncState.Status.DELETED, self.told(f"status {state.status}")
            return
        assert self.customer.deleted_at is None, self.told("Deleted by nobody")
        (record,) = self.world.living()
        here, there = customer_fields(self.customer, ROOTS), record.fields
        conflicts = set(Conflict.objects.open().filter(state=state).values_list("field", flat=True))
        for name in FIELDS:
            edits = self.edits[name]
            if name in conflicts:
                assert len(edits) == 2, self.told(f"A conflict about {name}, which one side alone edited")
                assert (here[name], there[name]) == (edits["here"], edits["there"]), self.told(f"{name} was lost")
                continue
            assert here.get(name) == there.get(name), self.told(f"{name}: {here.get(name)!r} and {there.get(name)!r}")
            assert (state.base or {}).get(name) == here.get(name), self.told(f"The base of {name} is wrong")
            if edits:
                assert here.get(name) in edits.values(), self.told(f"An edit of {name} was lost: {edits}")
        expected = SyncState.Status.CONFLICT if conflicts else SyncState.Status.IN_SYNC
        assert state.status == expected, self.told(f"status {state.status}")
        assert ours or not created, self.told("The record of another")

    def _check_overwritten(self) -> None:
        """Neither side's value was replaced unless the other side had seen it."""
        pulled, value_of = set(), dict.fromkeys(FIELDS, "start")
        for event in self.told_of:
            if event.aggregate_id != str(self.customer.pk):
                continue
            payload = event.payload
            for name in FIELDS:
                root, _, key = name.partition(".")
                value = str(payload[root].get(key) if key else payload[root])
                if value == value_of[name]:
                    continue
                if event.origin == "memory":
                    pulled.add(f"{name}={value}")
                    replaced = f"{name}={value_of[name]}"
                    known = not value_of[name].startswith("here") or replaced in self.seen_there
                    assert known, self.told(f"A pull of {value} replaced {replaced}, which never got there")
                value_of[name] = value
        for name, value, key in self.overwritten:
            if f"{name}={value}" not in pulled:
                late = self.edited_at[f"{name}={value}"] > self.fetched_at.get(key, inf)
                assert late, self.told(f"A push replaced {name}={value}, which was there before the fetch")

    def _was_struck(self, call: Call) -> bool:
        return call.struck

    def _vanished(self, call: Call) -> bool:
        """It was deleted between the fetch and the call."""
        return self.deleted_there or call.method == "delete"


__all__ = ["FIELDS", "IntegrationError", "Life"]
