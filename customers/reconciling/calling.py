"""Calls of a comparison: bulk ones, so that nobody who waits for an answer ever waits for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from customers.integrations import Integration
from customers.models import Priority
from customers.sync.calls import gated
from customers.sync.ratelimit import Gate, NoToken
from operations.long_actions.kinds import Batch

T = TypeVar("T")

_PATIENCE: Final = 5.0
_MARGIN: Final = 1.0


class BulkCalls:
    """Makes calls for the items of a batch, each only if it must end before the batch does.

    Args:
        integration: the other side.
        batch: whose end counts.
    """

    def __init__(self, integration: Integration, batch: Batch) -> None:
        self.integration = integration
        self._batch = batch
        self._gate = Gate(integration)

    def __call__(self, function: Callable[[], T]) -> T:
        """One call.

        Raises:
            IntegrationError: as the adapter or the gate raised it; ``NoToken`` also when there is no time left.
        """
        spare = self._batch.remaining() - self.integration.call_timeout - _MARGIN
        if spare < 0:
            raise NoToken("There is no time left for another call.", code="no_time")
        return gated(self._gate, function, priority=Priority.BULK, patience=min(_PATIENCE, spare))
