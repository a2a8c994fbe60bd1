"""What an integration can do: the class that each adapter is one of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, ClassVar

from customers.integrations.records import Changes, Fields, Found, MessagePage, RecordPage, RemoteMessage, RemoteRecord


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
        """Check the signature of a webhook and, only if it is right, read it.

        Raises:
            WebhookRefused: it is not signed, or too old.
            ProblemError: it is signed, and its body is no message; the sender is told why.
        """

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
