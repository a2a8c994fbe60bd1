"""A second integration, in memory: it proves that the engine knows nothing of Stripe, and it is fast.

It keeps Stripe's promises and no others: idempotency keys replay their answer, a deleted record stays known, edits by
strangers need no key, and each change has one message. Faults are planted by the test.
"""

from __future__ import annotations

import itertools
import json
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

from customers.integrations import (
    Changes,
    Fields,
    Found,
    Integration,
    KeyMisused,
    PermanentError,
    RecordPage,
    RemoteMessage,
    RemoteMissing,
    RemoteRecord,
    Unreachable,
    WebhookRefused,
)

# One count for all worlds: their ids never meet in one database.
_numbers: Iterator[int] = itertools.count(1)


@dataclass
class Call:
    """A line of the request log. ``changed``: it altered the record; ``struck``: it never arrived."""

    method: str
    remote_id: str
    key: str = ""
    changed: bool = False
    replayed: bool = False
    struck: bool = False


@dataclass
class World:
    """The other side, with what happened to it."""

    records: dict[str, RemoteRecord] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    messages: deque[dict[str, Any]] = field(default_factory=deque)
    saved: dict[str, tuple[str, RemoteRecord | Exception]] = field(default_factory=dict)
    obstacles: dict[str, str] = field(default_factory=dict)
    before: list[Callable[[Call], None]] = field(default_factory=list)
    after: list[Callable[[Call], None]] = field(default_factory=list)
    clock: Callable[[], datetime] = lambda: datetime.now(UTC) - timedelta(minutes=5)
    on_edit: Callable[[str, Fields, Mapping[str, Any]], None] = lambda key, before, changes: None

    def add(self, *, reference: str = "", key: str = "", **fields: Any) -> RemoteRecord:
        """Create a record as a stranger would."""
        record = RemoteRecord(
            remote_id=f"rem_{next(_numbers)}", fields=dict(fields), reference=reference, created_at=self.clock()
        )
        self.records[record.remote_id] = record
        self.on_edit(key, {}, fields)
        self._tell("created", record, key)
        return record

    def edit(self, remote_id: str, *, key: str = "", **changes: Any) -> bool:
        """Change fields; None unsets. True when anything differs."""
        record = self.records[remote_id]
        fields = {name: value for name, value in {**record.fields, **changes}.items() if value is not None}
        if fields == record.fields:
            return False
        self.on_edit(key, record.fields, changes)
        self.records[remote_id] = replace(record, fields=fields)
        self._tell("updated", self.records[remote_id], key)
        return True

    def remove(self, remote_id: str) -> None:
        record = self.records[remote_id]
        self.records[remote_id] = RemoteRecord(remote_id=remote_id, deleted=True)
        self._tell("deleted", record, "")

    def living(self) -> list[RemoteRecord]:
        return [record for record in self.records.values() if not record.deleted]

    def writes(self) -> list[Call]:
        return [call for call in self.calls if call.method in ("create", "update", "delete")]

    def lose_answers(self, count: int, *, method: str = "") -> None:
        """The next calls have their effect, but nobody hears of it."""
        self._plant(self.after, count, method)

    def lose_requests(self, count: int, *, method: str = "") -> None:
        """The next calls never arrive."""
        self._plant(self.before, count, method)

    def refuse_repeat(self, *, method: str) -> None:
        """The second call of this kind is refused before the other side sees its key."""
        seen = itertools.count()

        def strike(call: Call) -> None:
            if call.method == method and next(seen) == 1:
                raise PermanentError("planted", code="planted")

        self.before.append(strike)

    def _plant(self, place: list[Callable[[Call], None]], count: int, method: str) -> None:
        left = [count]

        def strike(call: Call) -> None:
            if left[0] > 0 and method in ("", call.method):
                left[0] -= 1
                raise Unreachable("planted", code="planted")

        place.append(strike)

    def _tell(self, kind: str, record: RemoteRecord, key: str) -> None:
        self.messages.append(
            {
                "id": f"msg_{next(_numbers)}",
                "type": kind,
                "remote_id": record.remote_id,
                "reference": record.reference,
                "fields": dict(record.fields),
                "key": key,
            }
        )


class MemoryIntegration(Integration):
    """The adapter of the world in force."""

    name: ClassVar[str] = "memory"
    world: ClassVar[World] = World()
    livemode = False
    rate = None
    page_size: ClassVar[int] = 3
    policy: ClassVar[str] = "refuse"
    remote_policy: ClassVar[str] = "archive"
    final_codes = frozenset({"email_invalid"})

    def __init__(self) -> None:
        self.delete_policy = self.policy
        self.remote_delete_policy = self.remote_policy

    def create_body(self, *, reference: str, fields: Fields) -> dict[str, Any]:
        return {"reference": reference, "fields": fields}

    def update_body(self, *, changes: Changes) -> dict[str, Any]:
        return dict(changes)

    def create(self, *, body: dict[str, Any], key: str) -> RemoteRecord:
        def effect(call: Call) -> RemoteRecord:
            call.changed = True
            return self.world.add(reference=body["reference"], key=key, **body["fields"])

        return self._keyed("create", "", body, key, effect)

    def update(self, *, remote_id: str, body: dict[str, Any], key: str) -> RemoteRecord:
        def effect(call: Call) -> RemoteRecord:
            if (record := self.world.records.get(remote_id)) is None or record.deleted:
                raise RemoteMissing("gone")
            call.changed = self.world.edit(remote_id, key=key, **body)
            return self.world.records[remote_id]

        return self._keyed("update", remote_id, body, key, effect)

    def delete(self, *, remote_id: str, key: str) -> None:
        with self._call("delete", remote_id) as call:
            if (record := self.world.records.get(remote_id)) is None or record.deleted:
                raise RemoteMissing("gone")
            self.world.remove(remote_id)
            call.changed = True

    def retrieve(self, *, remote_id: str) -> RemoteRecord | None:
        with self._call("retrieve", remote_id):
            return self.world.records.get(remote_id)

    def find(self, *, reference: str, email: str, sent: tuple[datetime, datetime], resume: str = "") -> Iterator[Found]:
        with self._call("find", reference):
            records = tuple(
                record
                for record in self.world.living()
                if record.reference == reference or (email and record.fields.get("email") == email)
            )
        yield Found(records=records)

    def page(self, *, since: datetime | None, until: datetime, after: str = "") -> RecordPage:
        with self._call("page", after):
            living = [
                record
                for record in reversed(self.world.living())
                if record.created_at and record.created_at < until and (since is None or record.created_at >= since)
            ]
        begin = next((n + 1 for n, record in enumerate(living) if record.remote_id == after), 0)
        page = living[begin : begin + self.page_size]
        more = begin + self.page_size < len(living)
        return RecordPage(records=tuple(page), after=page[-1].remote_id if more else "")

    def delete_obstacle(self, *, remote_id: str) -> str:
        with self._call("obstacle", remote_id):
            return self.world.obstacles.get(remote_id, "")

    def webhook_verify(self, *, body: bytes, headers: Mapping[str, str]) -> RemoteMessage:
        if headers.get("Signature") != "good":
            raise WebhookRefused
        payload = json.loads(body)
        return RemoteMessage(
            event_id=payload["id"],
            type=payload["type"],
            account="",
            livemode=False,
            remote_id=payload["remote_id"],
            payload=payload,
        )

    def webhook_record(self, payload: Mapping[str, Any]) -> tuple[RemoteRecord | None, str]:
        record = RemoteRecord(
            remote_id=payload["remote_id"],
            fields=dict(payload["fields"]),
            deleted=payload["type"] == "deleted",
            reference=payload["reference"],
        )
        return record, payload["key"]

    def _keyed(
        self, method: str, remote_id: str, body: dict[str, Any], key: str, effect: Callable[[Call], RemoteRecord]
    ) -> RemoteRecord:
        digest = json.dumps([method, remote_id, body], sort_keys=True)
        with self._call(method, remote_id, key) as call:
            if key in self.world.saved:
                known, answer = self.world.saved[key]
                call.replayed = True
                if known != digest:
                    raise KeyMisused("other body")
                if isinstance(answer, Exception):
                    raise answer
                return answer
            record = effect(call)
            self.world.saved[key] = (digest, record)
            return record

    def _call(self, method: str, remote_id: str, key: str = "") -> _Planted:
        return _Planted(self.world, Call(method, remote_id, key))


class _Planted:
    """One call with the faults planted before and after its effect."""

    def __init__(self, world: World, call: Call) -> None:
        self.world, self.call = world, call

    def __enter__(self) -> Call:
        self.world.calls.append(self.call)
        self.call.struck = True
        for strike in self.world.before:
            strike(self.call)
        self.call.struck = False
        return self.call

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None:
            for strike in self.world.after:
                strike(self.call)
