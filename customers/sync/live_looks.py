"""How many requests may wait for another side at once.

A side that fell silent is waited for by a thread for each request; without a bound it would take them all, and with
them the service, for anybody who may read a customer.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from customers.errors import LiveLooksBusy
from customers.sync.conf import sync_settings


@contextmanager
def live_look() -> Iterator[None]:
    """Take one of this process's places (``SYNC_LIVE_LOOKS``) for the block, without waiting for one.

    Raises:
        LiveLooksBusy: all are taken.
    """
    me = object()
    with _lock:
        if len(_looking) >= sync_settings().live_looks:
            raise LiveLooksBusy
        _looking.add(me)
    try:
        yield
    finally:
        with _lock:
            _looking.discard(me)


_lock: Final = threading.Lock()
_looking: Final[set[object]] = set()
