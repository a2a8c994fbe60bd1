"""What adapters give: records and messages of the other side, in fields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

Value = str | dict[str, str]
Fields = dict[str, Value]
# What is sent: a value, or None to unset the field.
Changes = Mapping[str, Value | None]


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
