"""A request that the sandbox got, the answer it gives, and the log of both."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import orjson

_LOG_LENGTH = 20_000


@dataclass(kw_only=True)
class Response:
    """What goes back over the wire.

    ``cut`` says that no answer arrives: ``reset`` closes the connection, ``hang`` holds it for ``hold`` seconds first.
    """

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    cut: str | None = None
    hold: float = 0.0

    def json(self) -> Any:
        return orjson.loads(self.body)


@dataclass(kw_only=True)
class Call:
    """One request on its way through the sandbox. ``params`` are typed once its route's table has parsed them.

    ``by_hand``: not an API request but somebody in the dashboard, so that events name no request.
    """

    method: str
    path: str
    route: str
    id: str
    request_id: str
    api_version: str
    idempotency_key: str | None
    raw: dict[str, Any]
    params: dict[str, Any]
    by_hand: bool = False


@dataclass(kw_only=True)
class LoggedRequest:
    """A line of the request log. ``wrote``: this request itself changed something (a replay does not)."""

    id: str
    method: str
    path: str
    params: dict[str, Any]
    idempotency_key: str | None
    started_at: float
    status: int | None = None
    error_code: str | None = None
    replayed: bool = False
    wrote: bool = False
    fault: str | None = None

    def as_dict(self) -> dict[str, Any]:
        return dict(vars(self))


class RequestLog:
    """The last requests in order of arrival."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lines: deque[LoggedRequest] = deque(maxlen=_LOG_LENGTH)

    def __iter__(self) -> Iterator[LoggedRequest]:
        with self._lock:
            return iter(list(self._lines))

    def __len__(self) -> int:
        return len(self._lines)

    def add(self, line: LoggedRequest) -> None:
        with self._lock:
            self._lines.append(line)

    def matching(self, route: str = "*") -> list[LoggedRequest]:
        """Requests whose ``METHOD /path`` matches the pattern, such as ``POST /v1/customers/*``."""
        return [line for line in self if fnmatchcase(f"{line.method} {line.path}", route)]

    def writes(self) -> list[LoggedRequest]:
        """Requests that changed something."""
        return [line for line in self if line.wrote]

    def clear(self) -> None:
        with self._lock:
            self._lines.clear()
