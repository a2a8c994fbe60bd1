"""So many requests at once in a web process, and no more: what hangs takes its share of threads, never all of them.

The web worker has more threads than places (``zenskar.web_worker``). A request takes a place from where its body was
read until its answer is written; for a short while it waits for one, then it is sent away. ``/livez``, ``/readyz`` and
``/metrics`` need none, so a process whose places are all taken is still seen to be alive, and is not restarted in the
middle of its work. Source: the bulkhead of M. Nygard, Release It!
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Final

from django.core.signals import request_finished
from django.http import HttpRequest, HttpResponse

from operations.errors import ProblemError
from operations.problem_details import problem_response

PROBES: Final = frozenset({"/livez", "/readyz", "/metrics"})
READS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
WRITES_OF_FOUR: Final = 3
"""Of four places, those that requests which change something may take: when all of these wait for the lock of one row,
everything can still be read."""


class TooBusy(ProblemError):
    """As many requests are being worked on here as can be. Nothing was changed. Try again."""

    status = 503
    code = "too_busy"
    title = "Too busy"

    def __init__(self) -> None:
        super().__init__(headers={"Retry-After": "1"})


class Places:
    """The places of one process.

    A thread holds one at most. So a place whose end was never told is found again with the thread's next request, and
    none is ever lost.

    Args:
        count: places there are.
        queue: requests that may wait for one.
        seconds: how long each of them waits.
    """

    def __init__(self, *, count: int, queue: int, seconds: float) -> None:
        self._limits: Final = {True: max(1, count * WRITES_OF_FOUR // 4), False: count}
        self._queue = queue
        self._seconds = seconds
        self._waiting = 0
        # By thread: whether its request changes something.
        self._taken: dict[int, bool] = {}
        self._freed = threading.Condition()

    def take(self, *, writes: bool) -> bool:
        """Whether this thread got a place; waits for one when there is room to wait."""
        me = threading.get_ident()
        with self._freed:
            self._taken.pop(me, None)
            if not self._has_room(writes) and not self._wait(writes):
                return False
            self._taken[me] = writes
            return True

    def leave(self) -> None:
        """This thread's request is over; whether it had a place or not."""
        with self._freed:
            if self._taken.pop(threading.get_ident(), None) is not None:
                # All, since the one who is woken may be one who may not have this place.
                self._freed.notify_all()

    def _has_room(self, writes: bool) -> bool:
        if len(self._taken) >= self._limits[False]:
            return False
        return not writes or sum(self._taken.values()) < self._limits[True]

    def _wait(self, writes: bool) -> bool:
        if self._waiting >= self._queue:
            return False
        self._waiting += 1
        try:
            return self._freed.wait_for(lambda: self._has_room(writes), self._seconds)
        finally:
            self._waiting -= 1


class BulkheadMiddleware:
    """Lets a request in when there is a place for it. Only the web worker knows of places; elsewhere all come in."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response
        # Sent when the answer was written, or could not be.
        request_finished.connect(_leave, dispatch_uid="zenskar.bulkhead")

    def __call__(self, request: HttpRequest) -> HttpResponse:
        places = _current.get("places")
        if places is None or request.path_info.rstrip("/") in PROBES:
            return self.get_response(request)
        if not places.take(writes=request.method not in READS):
            return problem_response(TooBusy())
        return self.get_response(request)


def places_open(*, count: int, queue: int, seconds: float) -> None:
    """Have this process work on ``count`` requests at once; see ``Places``."""
    _current["places"] = Places(count=count, queue=queue, seconds=seconds)


def _leave(**_: Any) -> None:
    if places := _current.get("places"):
        places.leave()


_current: Final[dict[str, Places]] = {}
