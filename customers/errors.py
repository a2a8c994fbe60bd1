"""What can be wrong with a request for customers, as types with their answers."""

from __future__ import annotations

from collections.abc import Sequence

from operations.errors import FieldError, ProblemError


class CustomerError(ProblemError):
    """The customer cannot be read or changed so."""


class InvalidCustomer(CustomerError):
    """Values of the customer are not valid."""

    status = 400
    code = "validation_failed"
    title = "Not valid"

    def __init__(self, errors: list[FieldError]) -> None:
        super().__init__(
            errors[0].detail if len(errors) == 1 else f"{len(errors)} values are not valid.", errors=errors
        )


def parameter_unknown(name: str) -> FieldError:
    """What is wrong with a parameter that nobody knows."""
    return FieldError(parameter=name[:100], code="unknown_parameter", detail="There is no such parameter.")


class InvalidQuery(CustomerError):
    """Parameters of the address are not valid."""

    status = 400
    code = "invalid_query"
    title = "Not valid"

    def __init__(self, errors: list[FieldError]) -> None:
        super().__init__(
            errors[0].detail if len(errors) == 1 else f"{len(errors)} parameters are not valid.", errors=errors
        )


class MalformedPrecondition(CustomerError):
    """If-Match and If-None-Match take entity tags in double quotes, as they came in ETag, or an asterisk."""

    status = 400
    code = "malformed_precondition"
    title = "Malformed precondition"


class CustomerNotFound(CustomerError):
    """There is no such customer."""

    status = 404
    code = "not_found"
    title = "Not found"


class ErasureNotFound(CustomerError):
    """Nobody asked to erase this customer."""

    status = 404
    code = "not_found"
    title = "Not found"


class LiveLooksBusy(CustomerError):
    """Others are asking the integrations now, as many as may at once. Try again in a moment."""

    status = 503
    code = "too_many_live_looks"
    title = "Too many live looks"

    def __init__(self) -> None:
        super().__init__(headers={"Retry-After": "2"})


class ErasureObstructed(CustomerError):
    """Something live hangs on the customer's record in an integration. Nothing was erased; say that it is known."""

    status = 409
    code = "erasure_obstructed"
    title = "Conflict"

    def __init__(self, obstacles: Sequence[str]) -> None:
        self.obstacles = list(obstacles)
        super().__init__(f"{' '.join(self.obstacles)} Nothing was erased. To do it all the same: despite_obstacles.")


class EmailTaken(CustomerError):
    """Another customer has this e-mail."""

    status = 409
    code = "duplicate_entry"
    title = "Conflict"
    field = "email"

    def __init__(self) -> None:
        detail = "Another customer has this e-mail, maybe in another case."
        super().__init__(errors=[FieldError(pointer="/email", code=self.code, detail=detail)])


class CustomerDeleted(CustomerError):
    """The customer was deleted, which cannot be undone."""

    status = 410
    code = "customer_deleted"
    title = "Gone"


class VersionMismatch(CustomerError):
    """The customer was changed since it was read; read it again."""

    status = 412
    code = "precondition_failed"
    title = "Precondition failed"


class CustomerBusy(CustomerError):
    """A protected change of this customer, or for its e-mail, is under way. Try again in a moment."""

    status = 409
    code = "customer_busy"
    title = "Conflict"

    def __init__(self) -> None:
        super().__init__(headers={"Retry-After": "1"})
