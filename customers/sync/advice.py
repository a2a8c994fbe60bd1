"""What settles a conflict, or a state that is not in sync, in plain words: the same wherever it is shown."""

from __future__ import annotations

from typing import Final

from customers.models import Conflict, Customer, SyncState

# What a person can do where no side can simply be taken, or one alone.
_ADVICE: Final[dict[str, str]] = {
    Conflict.Kind.FIELD: "Both sides changed it since they last agreed. Say whose value holds; the other side gets it.",
    Conflict.Kind.EMAIL_TAKEN: "A customer here has the e-mail of a record there. Merge or delete the spare record "
    "there, or give it another e-mail: then this closes by itself. Or give the customer here that has the e-mail "
    "another one, then look again.",
    Conflict.Kind.REFUSED_HERE: "The value there breaks a rule of the catalogue. Keep what is here, or mend the value "
    "there and look again.",
    Conflict.Kind.SAME_EMAIL: "Records there have this e-mail and are linked to no customer. Nothing stops meanwhile; "
    "if one of them is this customer, merge or delete the spare one there.",
    Conflict.Kind.SEVERAL: "Several records there carry this customer's id. Delete the spare ones there, or take the "
    "id out of their metadata, then look again.",
    Conflict.Kind.DELETE_REFUSED: "The customer was deleted here, but the record there still has something live. End "
    "that there, then look again.",
    Conflict.Kind.REMOTE_DELETED: "The record was deleted there while the customer is still here. Delete the customer "
    "here too if that was meant.",
    Conflict.Kind.REMOTE_MISSING: "The integration does not know the id that is kept here. See whether the key is of "
    "the right account and mode, then look again.",
    Conflict.Kind.NAMES_ANOTHER: "Compare both sides: that proposes to link the two. If the id in its metadata is a "
    "copy, take it out there, then look again: it becomes a customer of its own.",
    Conflict.Kind.LINKED_ELSEWHERE: "The record there belongs to another customer here. Set the id in its metadata "
    "right there, then look again.",
}

_STATES: Final[dict[str, str]] = {
    SyncState.Status.RETRYING: "Nothing, unless the error stays: it is tried again by itself.",
    SyncState.Status.FAILED: "What was sent was refused. Mend what the last error says, here or there, then look "
    "again; what may pass by itself is tried every hour for a day.",
    SyncState.Status.CONFLICT: "That waits for a decision; all else is in sync.",
    SyncState.Status.ORPHANED: "The record and the catalogue do not belong together. Compare both sides.",
}


def state_advice(status: str) -> str:
    """What a person can do about a sync state; empty where there is nothing to do."""
    return _STATES.get(status, "")


def conflict_advice(kind: str) -> str:
    """What a person can do about a conflict of this kind; empty for a kind that is not known."""
    return _ADVICE.get(kind, "")


def conflict_holder(conflict: Conflict) -> Customer | None:
    """The customer here that has the e-mail which a record there was given, as of now; None in other conflicts."""
    if conflict.kind != Conflict.Kind.EMAIL_TAKEN:
        return None
    email = conflict.theirs.get("email") if isinstance(conflict.theirs, dict) else conflict.theirs
    return Customer.objects.active().with_email(email).first() if isinstance(email, str) and email else None
