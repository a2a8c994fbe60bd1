from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.projections.cleaning import builds_drop


@pytest.fixture(autouse=True)
def _clean(transactional_db: None) -> Iterator[None]:
    builds_drop("customers_directory", "customers_activity")
    yield
    builds_drop("customers_directory", "customers_activity")
