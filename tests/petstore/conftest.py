from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.customers.conftest import Api
from tests.projections.cleaning import builds_drop

SHOP = "/api/v1/petstore-outbox"


@pytest.fixture(autouse=True)
def _clean(transactional_db: None) -> Iterator[None]:
    builds_drop("petstore_order_book", "customers_directory", "customers_activity")
    yield
    builds_drop("petstore_order_book", "customers_directory", "customers_activity")


@pytest.fixture
def shop(transactional_db: None) -> Api:
    return Api("customers:read", "customers:write", "operations:read")
