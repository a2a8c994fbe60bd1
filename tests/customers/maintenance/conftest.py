from __future__ import annotations

from tests.customers.stripe.conftest import sandbox, stripe_server, stripe_side
from tests.customers.sync.conftest import side, world
from tests.operations.conftest import staff_client

__all__ = ["sandbox", "side", "staff_client", "stripe_server", "stripe_side", "world"]
