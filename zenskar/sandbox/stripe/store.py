"""What the sandbox remembers: objects in memory, written through to a SQLite file when one is given.

One transaction per request: a process that is killed leaves whole requests behind or nothing of them.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import orjson

# One row per object; seq keeps the order of creation, which lists follow.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS object (
    kind TEXT NOT NULL,
    id   TEXT NOT NULL,
    seq  INTEGER NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (kind, id)
) WITHOUT ROWID
"""
# A change keeps the seq of creation.
_PUT = """
INSERT INTO object (kind, id, seq, body) VALUES (?, ?, ?, ?) ON CONFLICT (kind, id) DO UPDATE SET body = excluded.body
"""


class Collection:
    """Objects of one kind by id, in order of creation."""

    def __init__(self, kind: str, store: Store) -> None:
        self.kind = kind
        self._store = store
        self._objects: dict[str, dict[str, Any]] = {}
        self._places: dict[str, int] = {}
        self._ids: list[str] = []
        self._next_seq = 0

    def __contains__(self, id: str) -> bool:
        return id in self._objects

    def __len__(self) -> int:
        return len(self._objects)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(list(self._objects.values()))

    def items(self) -> list[tuple[str, dict[str, Any]]]:
        return list(self._objects.items())

    def scan(self) -> Iterable[dict[str, Any]]:
        """All of them, uncopied: the caller holds the lock and changes nothing meanwhile."""
        return self._objects.values()

    def get(self, id: str) -> dict[str, Any] | None:
        return self._objects.get(id)

    def place(self, id: str) -> int | None:
        """Where ``id`` stands in the order of creation."""
        return self._places.get(id)

    def newest_first(self, *, below: int | None = None) -> Iterator[dict[str, Any]]:
        """Objects before place ``below``, or all of them, newest first."""
        start = len(self._ids) if below is None else below
        for place in range(start - 1, -1, -1):
            found = self._objects.get(self._ids[place])
            if found is not None:
                yield found

    def oldest_first(self, *, above: int) -> Iterator[dict[str, Any]]:
        """Objects after place ``above``, oldest first."""
        for place in range(above + 1, len(self._ids)):
            found = self._objects.get(self._ids[place])
            if found is not None:
                yield found

    def put(self, id: str, body: dict[str, Any]) -> None:
        if id not in self._places:
            self._places[id] = len(self._ids)
            self._ids.append(id)
            self._next_seq += 1
        self._objects[id] = body
        self._store.changes += 1
        self._store.write(_PUT, (self.kind, id, self._next_seq, orjson.dumps(body)))

    def remove(self, id: str) -> None:
        if self._objects.pop(id, None) is not None:
            del self._places[id]
            self._store.changes += 1
            self._store.write("DELETE FROM object WHERE kind = ? AND id = ?", (self.kind, id))

    def clear(self) -> None:
        self._objects.clear()
        self._places.clear()
        self._ids.clear()
        self._store.write("DELETE FROM object WHERE kind = ?", (self.kind,))

    def load(self, id: str, seq: int, body: dict[str, Any]) -> None:
        """Take in what the file holds, in ascending ``seq``."""
        self._next_seq = seq
        self._places[id] = len(self._ids)
        self._ids.append(id)
        self._objects[id] = body


class Store:
    """All collections and the file behind them.

    Arguments: ``path`` of the SQLite file, None to keep everything in memory. Not safe for threads by itself: the
    sandbox calls it under its own lock.
    """

    KINDS = ("customers", "events", "subscriptions", "endpoints", "deliveries", "idempotency", "account")

    def __init__(self, path: Path | None = None) -> None:
        self._connection: sqlite3.Connection | None = None
        self._depth = 0
        self.changes = 0
        self.lock = threading.RLock()
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = NORMAL")
            self._connection.execute(_SCHEMA)
            path.chmod(0o600)
        self.customers = Collection("customers", self)
        self.events = Collection("events", self)
        self.subscriptions = Collection("subscriptions", self)
        self.endpoints = Collection("endpoints", self)
        self.deliveries = Collection("deliveries", self)
        self.idempotency = Collection("idempotency", self)
        self.account = Collection("account", self)
        self._load()

    def collections(self) -> list[Collection]:
        return [getattr(self, kind) for kind in self.KINDS]

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything put inside reaches the file together; nested ones join the outermost."""
        with self.lock:
            outermost = self._depth == 0
            if outermost and self._connection is not None:
                self._connection.execute("BEGIN")
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1
                if outermost and self._connection is not None and self._connection.in_transaction:
                    self._connection.execute("COMMIT")

    def write(self, sql: str, arguments: tuple[Any, ...]) -> None:
        if self._connection is not None:
            self._connection.execute(sql, arguments)

    def close(self) -> None:
        with self.lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _load(self) -> None:
        if self._connection is None:
            return
        by_kind = {collection.kind: collection for collection in self.collections()}
        for kind, id, seq, body in self._connection.execute(
            "SELECT kind, id, seq, body FROM object ORDER BY kind, seq"
        ):
            if kind in by_kind:
                by_kind[kind].load(id, seq, orjson.loads(body))
