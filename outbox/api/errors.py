"""What can be wrong with a request that concerns the outbox."""

from __future__ import annotations

from operations.errors import ProblemError


class EventNotFound(ProblemError):
    """There is no such event."""

    status = 404
    code = "not_found"
    title = "Not found"


class DeliveryNotFound(ProblemError):
    """There is no such delivery."""

    status = 404
    code = "not_found"
    title = "Not found"


class MessageNotFound(ProblemError):
    """There is no such message."""

    status = 404
    code = "not_found"
    title = "Not found"


class SubscriberNotFound(ProblemError):
    """There is no such subscriber."""

    status = 404
    code = "not_found"
    title = "Not found"


class ActionNotAllowed(ProblemError):
    """The caller may not do this."""

    status = 403
    code = "insufficient_scope"
    title = "Not allowed"


class ActionRefused(ProblemError):
    """This cannot be done as things are now."""

    status = 409
    code = "action_refused"
    title = "Not possible now"


class InvalidInput(ProblemError):
    """What was sent is not valid."""

    code = "validation_failed"
    title = "Not valid"
