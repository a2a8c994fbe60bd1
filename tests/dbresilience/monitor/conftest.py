from __future__ import annotations

from collections.abc import Iterator

import pytest

from dbresilience.models import Deadlock, ProcessReport, Sample, Tally, ViolationTally
from dbresilience.observations.pending import pending


@pytest.fixture(autouse=True)
def nothing_observed(transactional_db: None) -> Iterator[None]:
    """Nothing observed before, and nothing left behind for tests that read what was committed."""
    _forget()
    yield
    _forget()


def _forget() -> None:
    for model in (Deadlock, ProcessReport, Sample, Tally, ViolationTally):
        model._default_manager.all().delete()
    pending.take()
