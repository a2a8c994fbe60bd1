"""What was observed of the database, as rows that all processes share."""

from __future__ import annotations

from dbresilience.models.deadlock import Deadlock
from dbresilience.models.process import ProcessReport
from dbresilience.models.sample import Sample
from dbresilience.models.tally import Tally, ViolationTally

__all__ = ["Deadlock", "ProcessReport", "Sample", "Tally", "ViolationTally"]
