"""What can be wrong with an idempotency key."""

from __future__ import annotations

from operations.errors import ProblemError


class KeyMalformed(ProblemError):
    """Idempotency-Key must be 1 to 255 visible ASCII characters, bare or in double quotes."""

    status = 400
    code = "invalid_idempotency_key"
    title = "Malformed idempotency key"


class KeyReused(ProblemError):
    """This idempotency key was used for another request."""

    status = 422
    code = "idempotency_key_reused"
    title = "Idempotency key reused"


class AnswerErased(ProblemError):
    """This key was used. What was answered spoke of somebody whose data was erased since; nothing was done again."""

    status = 410
    code = "answer_erased"
    title = "Answer erased"


class KeyInFlight(ProblemError):
    """A request with this idempotency key is being carried out. Ask again in a moment."""

    status = 409
    code = "idempotency_key_in_flight"
    title = "Request in flight"
