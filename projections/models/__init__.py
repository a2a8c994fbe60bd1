"""The engine's own tables: builds with their checkpoints, failures, and what was measured."""

from __future__ import annotations

from projections.models.build import Build, BuildState
from projections.models.failure import Detour, Failure, FailureAttempt, FailureState, Strategy
from projections.models.mark import Mark
from projections.models.minute import Minute

__all__ = [
    "Build",
    "BuildState",
    "Detour",
    "Failure",
    "FailureAttempt",
    "FailureState",
    "Mark",
    "Minute",
    "Strategy",
]
