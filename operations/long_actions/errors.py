"""What can be wrong with a request that concerns an operation."""

from __future__ import annotations

from operations.errors import ProblemError


class OperationNotFound(ProblemError):
    """There is no such operation."""

    status = 404
    code = "not_found"
    title = "Not found"


class OperationStateRefused(ProblemError):
    """The operation's state does not allow this."""

    status = 409
    code = "operation_state"
    title = "Not in this state"


class OperationUnderWay(ProblemError):
    """Another operation does just the same already."""

    status = 409
    code = "operation_under_way"
    title = "Under way already"


class OperationNotAllowed(ProblemError):
    """The caller may not do this kind of operation."""

    status = 403
    code = "insufficient_scope"
    title = "Not allowed"


class InvalidOperation(ProblemError):
    """The operation cannot be planned like this."""

    status = 400
    code = "validation_failed"
    title = "Not valid"


class LeaseLost(Exception):
    """Another worker took the operation meanwhile; nothing may be written on behalf of this lease."""
