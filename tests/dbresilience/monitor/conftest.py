from __future__ import annotations

import pytest

from dbresilience.models import Deadlock, ProcessReport, Sample, Tally, ViolationTally
from dbresilience.observations.pending import pending


@pytest.fixture(autouse=True)
def nothing_observed(unflushed_db: None) -> None:
    """Forget what other tests made this process observe, and what they wrote."""
    pending.take()
    for model in (Deadlock, ProcessReport, Sample, Tally, ViolationTally):
        model._default_manager.all().delete()
    pending.take()
