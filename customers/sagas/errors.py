"""How a protected change can end other than well, as types with their answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from customers.errors import CustomerError


class IntegrationRefused(CustomerError):
    """An integration refused the change; nothing was changed."""

    status = 502
    code = "integration_refused"
    title = "Refused by the integration"


class IntegrationSilent(CustomerError):
    """An integration gave no usable answer for so long that the change was given up; nothing was changed."""

    status = 502
    code = "integration_unavailable"
    title = "No answer from the integration"


class RemoteConflict(CustomerError):
    """The record in the integration was changed there since both sides agreed; nothing was changed."""

    status = 409
    code = "remote_conflict"
    title = "Conflict"


class DeleteRefused(CustomerError):
    """The record in the integration still has something live; nothing was deleted."""

    status = 409
    code = "delete_refused"
    title = "Conflict"


class SagaUndone(CustomerError):
    """A protected change that was undone: the problem that it ended with, as it was written down."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        super().__init__(str(document["detail"]))
        self.status = int(document["status"])
        self.code = str(document["code"])
        self.title = str(document["title"])
        self.field = str(document.get("field", ""))
        self.document = dict(document)


class SagaUndecided(CustomerError):
    """The time limit ended before the integrations had answered. The change goes on; its address says how it ends."""

    status = 504
    code = "protected_change_undecided"
    title = "Not decided in time"

    def __init__(self, url: str) -> None:
        super().__init__(headers={"Location": url, "Retry-After": "5"})
        self.members = {"saga": url}


class SagasBusy(CustomerError):
    """As many protected changes as may are under way in this process. Nothing was begun. Try again."""

    status = 503
    code = "too_many_protected_changes"
    title = "Too many protected changes"

    def __init__(self) -> None:
        super().__init__(headers={"Retry-After": "2"})


class SagaNotFound(CustomerError):
    """There is no such protected change."""

    status = 404
    code = "not_found"
    title = "Not found"


class ProtectionMalformed(CustomerError):
    """X-Use-Integrity-Protection is true or false."""

    status = 400
    code = "invalid_header"
    title = "Malformed header"


class SagaLeaseLost(Exception):
    """Another worker took the saga; nothing may be written on behalf of this one."""


class SagaWaits(Exception):
    """It cannot go on now; the same again later.

    Args:
        error_class: kind of what stands in the way, as integrations name it.
        code: short word.
        message: for a person.
        wait: seconds before it makes sense; 0: by the ladder.
        is_strike: whether it counts as a failure, unlike an outage and a limit.
    """

    def __init__(
        self, *, error_class: str, code: str = "", message: str = "", wait: float = 0.0, is_strike: bool = False
    ) -> None:
        super().__init__(message)
        self.error_class, self.code, self.message = error_class, code, message
        self.wait, self.is_strike = wait, is_strike
