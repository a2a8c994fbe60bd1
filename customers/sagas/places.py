"""Carrying a saga out on behalf of a caller: for so long, and for so many at once."""

from __future__ import annotations

import threading
import time
from typing import Final

import structlog
from django.db import connections

from customers.sagas.conf import saga_settings
from customers.sagas.ending import Ended
from customers.sagas.errors import SagasBusy
from customers.sagas.lease import SagaLease
from customers.sagas.running import saga_run

log = structlog.get_logger(__name__)


class Place:
    """One of this process's places (``PROTECTED_AT_ONCE``): an integration that fell silent must not take all threads.

    Raises:
        SagasBusy: all are taken; nothing was begun.
    """

    def __init__(self) -> None:
        with _lock:
            if len(_taken) >= saga_settings().places:
                raise SagasBusy
            _taken.add(self)

    def leave(self) -> None:
        """Give it back; more than once does no harm."""
        with _lock:
            _taken.discard(self)

    def carry_out(self, lease: SagaLease) -> Ended | None:
        """Run the saga in a thread of its own and wait for it, at most ``PROTECTED_SECONDS``.

        The thread outlives the wait, and keeps the place until then: a call that is under way cannot be taken back, and
        whoever takes the saga over after it ended the same way as if this process had died.

        Returns:
            How it ended; None if it has not in that time.
        """
        ended: list[Ended] = []
        limit = saga_settings().limit
        until = time.monotonic() + limit

        def work() -> None:
            try:
                if (found := saga_run(lease, until=until)) is not None:
                    ended.append(found)
            except Exception:
                # Without the database nothing can be written about it: the lease runs out, and another worker goes on.
                log.exception("saga_interrupted", saga=str(lease.saga_id))
            finally:
                connections.close_all()
                self.leave()

        thread = threading.Thread(target=work, name=f"saga-{lease.saga_id}", daemon=True)
        thread.start()
        thread.join(limit)
        return ended[0] if ended else None


_lock: Final = threading.Lock()
_taken: Final[set[Place]] = set()
