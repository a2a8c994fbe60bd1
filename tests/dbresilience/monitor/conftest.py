from __future__ import annotations

import pytest

from dbresilience.observations.pending import pending


@pytest.fixture(autouse=True)
def nothing_observed(transactional_db: None) -> None:
    """Forget what other tests made this process observe."""
    pending.take()
