"""What can go wrong in the log and on the way to a subscriber, as types."""

from __future__ import annotations

from typing import ClassVar

from django.db.models import TextChoices


class ErrorClass(TextChoices):
    """What a failed delivery calls for.

    retryable: the ladder of the subscriber, with jitter.
    permanent: no retry can help; dead at once, for a person.
    configuration: nothing gets through until a person changes a setting; the subscriber is paused.
    outage: the other side is away; the breaker opens and no attempt is used.
    crash: the worker died on this event; treated as retryable, and delivered alone.
    """

    RETRYABLE = "retryable"
    PERMANENT = "permanent"
    CONFIGURATION = "configuration"
    OUTAGE = "outage"
    CRASH = "crash"


class OutboxError(Exception):
    """The outbox refused, or could not do, what it was asked."""


class PublishOutsideTransaction(OutboxError):
    """An event can be published only inside the transaction of the change that it tells of."""


class InvalidEvent(OutboxError, ValueError):
    """The event cannot be written: a name is empty, too long or not plain, or the payload is no JSON object."""


class UnknownSubscriber(OutboxError, LookupError):
    """No subscriber of this name is listed in OUTBOX_SUBSCRIBERS."""


class InvalidLimit(OutboxError, ValueError):
    """The limit is out of its range."""


class InvalidFilter(OutboxError, ValueError):
    """The filter names a condition that does not exist, or a value that it cannot have."""


class DecisionRefused(OutboxError):
    """What was asked for cannot be done with this delivery, event or subscriber, as it is now."""


class LanesLost(OutboxError):
    """Another worker has claimed these lanes meanwhile; what was done for them is not recorded."""


class DeliveryError(OutboxError):
    """A delivery failed.

    Args:
        message: one bounded sentence for a person; nothing secret.
        code: stable short word, for grouping.
    """

    error_class: ClassVar[ErrorClass] = ErrorClass.RETRYABLE

    def __init__(self, message: str = "", *, code: str = "") -> None:
        super().__init__(message or self.__class__.__doc__)
        self.code = code or type(self).__name__


class RetryableError(DeliveryError):
    """A later attempt may succeed."""


class PermanentError(DeliveryError):
    """No later attempt can succeed."""

    error_class = ErrorClass.PERMANENT


class ConfigurationError(DeliveryError):
    """Nothing can be delivered until a setting is changed."""

    error_class = ErrorClass.CONFIGURATION


class OutageError(DeliveryError):
    """The other side is away."""

    error_class = ErrorClass.OUTAGE
