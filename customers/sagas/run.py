"""One worker's hold on a saga, and the error that turns it back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from customers.models import SagaStep
from customers.sagas.lease import SagaLease
from customers.sync.work import no_step
from operations.errors import ProblemError


@dataclass(slots=True)
class Run:
    """What the holder of a saga works with.

    Attributes:
        lease: on the saga.
        on_step: called with a name at each boundary between a commit and a call, where a process may die.
    """

    lease: SagaLease
    on_step: Callable[[str], None] = no_step


class SagaRefused(Exception):
    """The saga cannot succeed: what was done of it must be undone.

    Args:
        problem: what its caller is told.
        step: at which it failed; None: at none of them, as when its time ran out.
        code: of the integration or of the problem.
        message: for a person; nothing secret.
    """

    def __init__(self, problem: ProblemError, *, step: SagaStep | None, code: str, message: str) -> None:
        super().__init__(message)
        self.problem, self.step, self.code, self.message = problem, step, code, message
