"""What can be wrong with a request that concerns troubles."""

from __future__ import annotations

from operations.errors import ProblemError


class UnknownSource(ProblemError):
    """There is no such source of troubles."""

    code = "validation_failed"
    title = "Not valid"


class TroubleNotFound(ProblemError):
    """There is no such trouble, or it is over."""

    status = 404
    code = "not_found"
    title = "Not found"


class TroubleNotAllowed(ProblemError):
    """The caller may not see or retry troubles of this source."""

    status = 403
    code = "insufficient_scope"
    title = "Not allowed"
