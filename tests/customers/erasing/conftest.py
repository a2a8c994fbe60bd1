from __future__ import annotations

from collections.abc import Iterator

import pytest

from customers.sync.pokes import SyncPokes
from tests.customers.stripe.conftest import sandbox, stripe_server, stripe_side
from tests.outbox.collecting import Collector
from tests.outbox.conftest import only
from tests.projections.cleaning import builds_drop

__all__ = ["sandbox", "stripe_server", "stripe_side"]


@pytest.fixture(autouse=True)
def _clean(transactional_db: None) -> Iterator[None]:
    builds_drop("customers_directory", "customers_activity")
    yield
    builds_drop("customers_directory", "customers_activity")


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Collector:
    """A subscriber beside the pokes: one of the outside, which keeps in memory what it gets."""
    collector = Collector()
    only(monkeypatch, SyncPokes(), collector)
    return collector
