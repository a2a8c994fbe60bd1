"""Forgetting whom a create was about that was undone, or stuck for long: there is no customer who could be erased."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from typing import Any, Final

from django.db.models import Exists, OuterRef, Q
from django.db.models.functions import Now

from customers.models import Saga, SyncRequest, SyncState, Webhook
from customers.sagas.conf import saga_settings
from customers.sync.quoting import EMAIL, texts_of
from customers.sync.webhooks import ERASED_BODY
from dbresilience.transactions import run_in_transaction
from outbox.masking import MASK

# Shorter values would be found in words that say nothing of anybody.
_SHORTEST: Final = 4
_AT_ONCE: Final = 1_000


def create_forget(saga: Saga) -> None:
    """Take the person out of everything that a create leaves when it is undone, in the transaction that ends it.

    What was created was deleted there; such a row keeps late messages about it from being taken for news. A row
    without a record is kept for its requests alone, and stays the saga's. Messages that come later are not kept
    either: the rows are locked here before the messages are looked for, and whoever works on one finds the row deleted.

    Args:
        saga: with its values; its failure is changed in place and is to be saved.
    """
    states = list(SyncState.objects.filter(saga=saga).select_for_update(no_key=True).order_by("id"))
    gone = SyncState.objects.filter(pk__in=[state.pk for state in states])
    gone.update(
        status=SyncState.Status.DELETED, dirty_at=None, base=None, base_hash="", lease_until=None, last_error_message=""
    )
    gone.filter(remote_id__isnull=False).update(saga=None)
    _traces_forget(saga, states)


def stuck_creates_forget_once(*, limit: int = _AT_ONCE) -> int:
    """Take the person out of creates that have been stuck for longer than that is kept (``PROTECTED_STUCK_RETENTION``).

    They stay stuck, keep their record in the integration apart, and can still be tried again: undoing a create asks for
    nothing but the record's id. One whose create may yet have an effect is left: its request is repeated word by word.

    Returns:
        How many still knew somebody.
    """
    days = saga_settings().stuck_retention
    if not days:
        return 0

    def work() -> int:
        doubtful = SyncRequest.objects.in_flight().filter(state__saga=OuterRef("pk"), method=SyncRequest.Method.CREATE)
        old = Saga.objects.stuck().filter(action=Saga.Action.CREATE, updated_at__lt=Now() - timedelta(days=days))
        rows = old.filter(~Exists(doubtful)).select_for_update(skip_locked=True, no_key=True)
        # Those that still know something come first; of the others there may have been messages since.
        sagas = list(rows.order_by("-values", "id")[:limit])
        knowing = sum(bool(saga.values) for saga in sagas)
        for saga in sagas:
            _stuck_forget(saga)
        return knowing

    return run_in_transaction(work)


def _stuck_forget(saga: Saga) -> None:
    states = list(SyncState.objects.filter(saga=saga).select_for_update(no_key=True).order_by("id"))
    SyncState.objects.filter(pk__in=[state.pk for state in states]).update(
        base=None, base_hash="", last_error_message=""
    )
    known = list(_values(saga.values))
    _traces_forget(saga, states)
    saga.values, saga.last_error_message = {}, text_masked(saga.last_error_message, known)
    # Not updated_at: since when it is stuck is what people see.
    saga.save(update_fields=["values", "failure", "last_error_message"])


def _traces_forget(saga: Saga, states: list[SyncState]) -> None:
    """What was sent and heard, and what was said of it; the saga's failure is changed in place."""
    requests = SyncRequest.objects.filter(state__in=states)
    requests.update(body={}, fields={})
    _webhooks_empty(states)
    known = list(_values(saga.values))
    for row in (*requests.exclude(error_message=""), *saga.steps.exclude(error_message="")):
        row.error_message = text_masked(row.error_message, known)
        row.save(update_fields=["error_message"])
    saga.failure = _masked(saga.failure or {}, known)


def text_masked(text: str, known: Iterable[str]) -> str:
    """A text without these values, in any case, and without anything that looks like an e-mail address."""
    words = sorted({re.escape(word) for word in known if len(word) >= _SHORTEST}, key=len, reverse=True)
    found = re.sub("|".join(words), MASK, text, flags=re.IGNORECASE) if words else text
    return EMAIL.sub(MASK, found)


def _webhooks_empty(states: list[SyncState]) -> None:
    # By the index webhook_by_remote_id.
    about = Q(pk__in=[])
    for state in states:
        if state.remote_id:
            about |= Q(integration=state.integration, remote_id=state.remote_id)
    processed = Webhook.objects.filter(about, processed_at__isnull=False)
    processed.exclude(payload=ERASED_BODY).update(payload=ERASED_BODY)


def _masked(document: Mapping[str, Any], known: list[str]) -> dict[str, Any]:
    """A problem whose texts, which may quote the integration, are masked.

    What is said before the integration's message is in our own words: they stay, whatever the person is called.
    """
    failed = dict(document.get("failed") or {})
    quoted = str(failed.get("message") or "")
    if quoted:
        failed["message"] = text_masked(quoted, known)
    said = {**document, "failed": failed} if failed else dict(document)
    if detail := str(said.get("detail") or ""):
        ours = detail.removesuffix(quoted) if quoted and detail.endswith(quoted) else ""
        said["detail"] = ours + text_masked(detail[len(ours) :], known)
    return said


def _values(said: Any) -> Iterator[str]:
    for text in texts_of(said):
        yield text
        yield from text.split()
