"""One taken sync state and what its holder works with: the lease, the integration, the gate before each call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from customers.integrations import Integration
from customers.models import Priority
from customers.sync.calls import gated
from customers.sync.conf import SyncSettings
from customers.sync.lease import Lease, lease_renew
from customers.sync.ratelimit import Gate

T = TypeVar("T")

_MARGIN: Final = 2.0
_PATIENCE: Final = {Priority.INTERACTIVE: 2.0, Priority.WEBHOOK: 1.0, Priority.BULK: 1.0}


def no_step(name: str) -> None:
    """What production does at a step boundary: nothing."""


class Work:
    """The holder's side of a lease.

    Args:
        lease: the taken row.
        integration: the other side.
        config: the settings in force.
        on_step: called with a name at each boundary between a commit and a call, where a process may die.
    """

    def __init__(
        self, lease: Lease, integration: Integration, config: SyncSettings, on_step: Callable[[str], None] = no_step
    ) -> None:
        self.lease = lease
        self.integration = integration
        self.config = config
        self.step = on_step
        self._gate = Gate(integration)

    def call(self, function: Callable[[], T]) -> T:
        """Make one call to the integration, outside of any transaction.

        It starts only if it must end before the lease does: a call that outlived its lease could land after the next
        holder's. The wait for a token counts, so the lease is renewed for both.

        Raises:
            IntegrationError: as the adapter or the gate raised it.
            LeaseLost: the row was taken by another worker.
        """
        priority = Priority(self.lease.priority)
        needed = _PATIENCE[priority] + self.integration.call_timeout + _MARGIN
        if self.lease.remaining() < needed:
            self.lease = lease_renew(self.lease, seconds=max(self.config.lease, needed))
        return gated(self._gate, function, priority=priority, patience=_PATIENCE[priority])
