"""What the shop refuses."""

from __future__ import annotations

from operations.errors import ProblemError


class UnknownPet(ProblemError):
    """There is no such pet."""

    status = 404
    code = "unknown_pet"
    title = "Unknown pet"


class UnknownOrder(ProblemError):
    """There is no such order."""

    status = 404
    code = "unknown_order"
    title = "Unknown order"


class OutOfStock(ProblemError):
    """There are not so many of them left."""

    status = 409
    code = "out_of_stock"
    title = "Out of stock"


class AlreadyRegistered(ProblemError):
    """A user of this id is registered already."""

    status = 409
    code = "already_registered"
    title = "Already registered"
