"""What a call to an integration may end in, by what follows from it."""

from __future__ import annotations

from typing import ClassVar


class IntegrationError(Exception):
    """A call to an integration did not succeed.

    Args:
        message: for a person; holds no secret.
        code: the integration's own short word.
        replayed: the answer is a saved one of an earlier request with the same idempotency key, so repeating that key
            can never give another.
    """

    error_class: ClassVar[str] = "retryable"

    def __init__(self, message: str = "", *, code: str = "", replayed: bool = False) -> None:
        self.message = message or (self.__doc__ or "").partition("\n")[0]
        self.code = code
        self.replayed = replayed
        super().__init__(self.message)


class RetryableError(IntegrationError):
    """The integration failed; the same request may succeed later, and may have had its effect already."""


class Unreachable(RetryableError):
    """No answer came; whether the request had its effect is not known."""

    error_class = "outage"


class PermanentError(IntegrationError):
    """The integration refused the request, had no effect, and would refuse it again."""

    error_class = "permanent"


class RemoteMissing(PermanentError):
    """The integration does not know this record, or it is deleted there."""


class KeyMisused(PermanentError):
    """The idempotency key was used with another body: what became of that request must be looked up."""


class ConfigurationError(IntegrationError):
    """The key, its permissions or its mode are wrong; nothing had an effect, and no other call would."""

    error_class = "configuration"


class PermissionMissing(ConfigurationError):
    """The key may not do this one thing; other calls may well succeed."""


class RateLimited(IntegrationError):
    """Too many calls; this one had no effect.

    Args:
        retry_after: seconds to wait; 0 when the integration did not say.
    """

    error_class = "rate_limit"

    def __init__(self, message: str = "", *, code: str = "", retry_after: float = 0.0) -> None:
        super().__init__(message, code=code)
        self.retry_after = retry_after


class WebhookRefused(Exception):
    """The message is not one that the integration signed, or is too old."""
