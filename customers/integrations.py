"""What an integration is: another system that keeps customers too. Stripe is one; nothing here knows which.

An adapter subclasses ``Integration`` and is named in ``settings.INTEGRATIONS``. It speaks in **fields**: a flat
mapping such as ``{"name": "Ada", "email": "ada@example.com", "address": {"city": "Turin"}, "metadata.plan": "gold"}``
in which a value that is missing, null or empty is simply absent.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from typing import Any, ClassVar

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

Value = str | dict[str, str]
Fields = dict[str, Value]
# What is sent: a value, or None to unset the field.
Changes = Mapping[str, Value | None]


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


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteRecord:
    """A customer as an integration has it.

    Attributes:
        remote_id: the integration's id.
        fields: canonical fields, without what the adapter itself wrote to recognise the record.
        deleted: it was deleted there, which is final.
        reference: id of the customer that it was created for, as the record carries it; copies carry it too.
        created_at: when it was created there, if the integration says so; no part of what is compared.
    """

    remote_id: str
    fields: Fields = field(default_factory=dict)
    deleted: bool = False
    reference: str = ""
    created_at: datetime | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordPage:
    """Some records of a list.

    Attributes:
        records: newest first.
        after: where the next page begins, of at most 255 characters; empty after the last one.
    """

    records: tuple[RemoteRecord, ...]
    after: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One step of a look-up.

    Attributes:
        records: what this step found.
        resume: where a later look-up may go on, of at most 255 characters; empty: at the beginning.
    """

    records: tuple[RemoteRecord, ...] = ()
    resume: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteMessage:
    """A verified webhook.

    Attributes:
        event_id: unique within the integration.
        type: in the integration's words.
        account: whose event it is; empty when it is the account of our own key.
        livemode: whether it is about real money.
        remote_id: the customer that it is about; empty when it is about something else.
        payload: the whole message, fit for a jsonb column.
        ignore: why it is of no interest; empty when it is.
    """

    event_id: str
    type: str
    account: str
    livemode: bool
    remote_id: str
    payload: dict[str, Any]
    ignore: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MessagePage:
    """Some messages that the integration keeps.

    Attributes:
        messages: in any order.
        after: where the next page begins, of at most 255 characters; empty after the last one.
    """

    messages: tuple[RemoteMessage, ...]
    after: str = ""


class Integration(ABC):
    """One system that keeps customers. Calls raise ``IntegrationError`` and never retry by themselves.

    Attributes:
        name: as in ``settings.INTEGRATIONS``; also the origin of events that it caused.
        account: whose records these are; empty for the account of the key.
        livemode: real money or a test.
        rate: calls per second over all processes; None for no limit.
        call_timeout: seconds within which any single call ends.
        roots: the fields that the integration can hold.
        key_lifetime: seconds for which an idempotency key is trusted after its first use.
        delete_policy: ``refuse``, ``delete`` or ``unlink``, when a customer is deleted here.
        remote_delete_policy: ``archive`` or ``conflict``, when it is deleted there.
        messages_kept: seconds for which the integration keeps its messages.
        final_codes: codes of refusals that other values alone can cure, so that nothing is tried again by itself.
    """

    name: ClassVar[str]
    account: str = ""
    livemode: bool = False
    rate: float | None = None
    call_timeout: float = 15.0
    roots: frozenset[str] = frozenset({"name", "email", "phone", "address", "metadata"})
    key_lifetime: float = 23 * 3600.0
    delete_policy: str = "refuse"
    remote_delete_policy: str = "archive"
    messages_kept: float = 30 * 86_400.0
    final_codes: frozenset[str] = frozenset()

    def is_set_up(self) -> bool:
        """Whether there is a key and all else that calls need; work that nobody asked for is left undone otherwise."""
        return True

    @abstractmethod
    def create_body(self, *, reference: str, fields: Fields) -> dict[str, Any]:
        """Parameters of a create; frozen as they are, so that a repeat sends the same bytes."""

    @abstractmethod
    def update_body(self, *, changes: Changes) -> dict[str, Any]:
        """Parameters of an update of just these fields; None unsets one."""

    @abstractmethod
    def create(self, *, body: dict[str, Any], key: str) -> RemoteRecord:
        """Create a record, once per ``key``."""

    @abstractmethod
    def update(self, *, remote_id: str, body: dict[str, Any], key: str) -> RemoteRecord:
        """Change a record, once per ``key``. Raises ``RemoteMissing`` also for a deleted one."""

    @abstractmethod
    def delete(self, *, remote_id: str, key: str) -> None:
        """Delete a record for good. Raises ``RemoteMissing`` when that was done before."""

    @abstractmethod
    def retrieve(self, *, remote_id: str) -> RemoteRecord | None:
        """The record as it is now, also a deleted one; None when the integration never heard of it."""

    @abstractmethod
    def find(self, *, reference: str, email: str, sent: tuple[datetime, datetime], resume: str = "") -> Iterator[Found]:
        """Living records that carry ``reference``, and others with this e-mail, which are candidates only.

        Taken to its end it has seen every record that was created in the time ``sent``, or has raised: the caller
        creates when nothing was found. Each step is one call to the integration, so that the caller can keep to the
        rate and to its lease between them, stop, and go on later.

        Args:
            reference: id of our customer.
            email: as it was sent; may be empty.
            sent: clock of our database at the first and at the last send of the create in doubt.
            resume: of the last step of an earlier look-up for the same create, which that one did not finish.
        """

    @abstractmethod
    def page(self, *, since: datetime | None, until: datetime, after: str = "") -> RecordPage:
        """Living records that were created from ``since`` on and before ``until``, some at a time: one call.

        A record that stays is on one page, also when others are created or deleted meanwhile.

        Args:
            since: None: from the first on.
            until: both by the integration's clock, in whole seconds.
            after: of the page before; empty for the first one.
        """

    @abstractmethod
    def delete_obstacle(self, *, remote_id: str) -> str:
        """What would be lost with the record, as one sentence; empty when nothing would."""

    @abstractmethod
    def webhook_verify(self, *, body: bytes, headers: Mapping[str, str]) -> RemoteMessage:
        """Check the signature of a webhook and read it. Raises ``WebhookRefused``."""

    def messages(self, *, since: datetime, until: datetime, after: str = "") -> MessagePage | None:
        """Messages about customers that were made in this time, as the integration keeps them: one call.

        Args:
            since, until: by the integration's clock.
            after: of the page before; empty for the first one. If it is unknown by now, the first one comes again.

        Returns:
            None when the integration keeps none; what no webhook told is found by comparing both sides then.
        """
        return None

    @abstractmethod
    def webhook_record(self, payload: Mapping[str, Any]) -> tuple[RemoteRecord | None, str]:
        """The record in a stored message as it was at that time, and the idempotency key that caused the message."""


@cache
def _class_of(path: str) -> type[Integration]:
    found = import_string(path)
    if not (isinstance(found, type) and issubclass(found, Integration)):
        raise ImproperlyConfigured(f"{path} in INTEGRATIONS is no Integration.")
    return found


def integration_get(name: str) -> Integration:
    """The integration of this name, made from the settings in force.

    Raises:
        LookupError: there is none of this name.
    """
    path = settings.INTEGRATIONS.get(name)
    if path is None:
        raise LookupError(f"No integration is named {name!r}.")
    return _class_of(path)()


def integrations() -> dict[str, Integration]:
    """Every integration by name."""
    return {name: integration_get(name) for name in settings.INTEGRATIONS}
