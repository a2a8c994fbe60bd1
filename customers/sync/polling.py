"""Messages that no webhook brought, found by asking the integration for those that it keeps.

Read in windows of time, each from the end of the one before, less an overlap: a message may appear a little later than
its time says. A window is read page by page, and where it is stands in a row, so that whoever comes next goes on there.
What is known already is left alone. So a message is worked on once, whichever way it came.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, Final

import structlog
from django.db.models import Q
from django.utils import timezone

from customers.integrations import (
    ConfigurationError,
    Integration,
    IntegrationError,
    MessagePage,
    RateLimited,
    RemoteMessage,
    integrations,
)
from customers.locks import INTEGRATION
from customers.models import Priority, SyncAccount, Webhook
from customers.reconciling.kinds import comparison_begin
from customers.sync.calls import gated
from customers.sync.ratelimit import Gate
from customers.sync.webhooks import webhook_row
from dbresilience.transactions import run_in_transaction
from operations.audit import SYSTEM
from operations.locks.errors import LockTaken
from operations.locks.held import lock_held
from outbox.wakeup import wake

log = structlog.get_logger(__name__)

OVERLAP: Final = timedelta(minutes=10)
# How far an account that was never asked is looked back upon. What is older, a comparison finds.
FIRST: Final = timedelta(days=1)
_BUDGET: Final = 60.0
_PATIENCE: Final = 5.0
# Seconds that a page may take which was asked for at the very end.
_LAST_PAGE: Final = 60.0


def messages_poll_once(*, budget: float = _BUDGET) -> int:
    """Ask every integration for its messages, as far as there is time; how many no webhook had brought.

    One process at a time asks an integration: two would pay for the same pages twice. Whoever comes second leaves it.

    Args:
        budget: seconds after which no further page is asked for.
    """
    ends, found = time.monotonic() + budget, 0
    for integration in integrations().values():
        if integration.is_set_up():
            with suppress(LockTaken), lock_held(INTEGRATION, integration.name, seconds=budget + _LAST_PAGE):
                found += _polled(integration, ends)
    return found


def _polled(integration: Integration, ends: float) -> int:
    gate, found = Gate(integration), 0
    account = _account(integration)
    try:
        while time.monotonic() < ends:
            place = _place(integration, account)
            page = _asked(integration, gate, place)
            if page is None:
                return 0
            more, new = _settle(integration, account, place, page)
            found += new
            if not more:
                break
            account.refresh_from_db()
    except RateLimited:
        # The rest has time: it begins where this ended.
        pass
    except ConfigurationError as exc:
        _note(account, exc.message)
    except IntegrationError as exc:
        log.info("messages_not_polled", integration=integration.name, code=exc.code)
        _note(account, exc.message)
    if found:
        log.warning("missed_webhooks_found", integration=integration.name, count=found)
        wake("webhooks")
    return found


def _asked(integration: Integration, gate: Gate, place: dict[str, Any]) -> MessagePage | None:
    def ask() -> MessagePage | None:
        return integration.messages(**place)

    return gated(gate, ask, priority=Priority.BULK, patience=_PATIENCE)


def _place(integration: Integration, account: SyncAccount) -> dict[str, Any]:
    """The window that is being read, or the next one; written down before its first page."""
    now = timezone.now()
    if account.polled_until is None:
        account.polled_until = now - FIRST
    elif account.polling_until is None and now - account.polled_until > timedelta(seconds=integration.messages_kept):
        # Nobody keeps what was told in between: only a comparison of both sides knows what changed.
        log.warning("messages_gone", integration=integration.name, since=account.polled_until.isoformat())
        comparison_begin(
            integration.name, actor=SYSTEM, reason="Messages of the time in between are not kept any more."
        )
        account.polled_until = now - FIRST
    if account.polling_until is None:
        account.polling_until, account.polling_after = now, ""
        account.save(update_fields=["polled_until", "polling_until", "polling_after"])
    since: datetime = account.polled_until - OVERLAP
    return {"since": since, "until": account.polling_until, "after": account.polling_after}


def _settle(
    integration: Integration, account: SyncAccount, place: dict[str, Any], page: MessagePage
) -> tuple[bool, int]:
    """Keep a page, and move on unless somebody else did; whether there are more pages, and how many were new."""

    def work() -> tuple[bool, int]:
        new = _kept(integration, page.messages)
        where = Q(pk=account.pk, polling_until=place["until"], polling_after=place["after"])
        if page.after:
            moved = SyncAccount.objects.filter(where).update(polling_after=page.after, polling_error="")
        else:
            moved = SyncAccount.objects.filter(where).update(
                polled_until=place["until"], polling_until=None, polling_after="", polling_error=""
            )
        return bool(page.after and moved), new

    return run_in_transaction(work)


def _kept(integration: Integration, messages: Sequence[RemoteMessage]) -> int:
    """Keep those that are not known; how many those are that mean anything."""
    ids = [message.event_id for message in messages]
    rows = Webhook.objects.filter(integration=integration.name, event_id__in=ids)
    known = set(rows.values_list("event_id", flat=True))
    new = [webhook_row(integration, message) for message in messages if message.event_id not in known]
    for row in new:
        row.polled = True
    # A webhook that comes at this very moment: the unique index keeps one of both.
    Webhook.objects.bulk_create(new, ignore_conflicts=True)
    return sum(row.outcome == Webhook.Outcome.PENDING for row in new)


def _note(account: SyncAccount, error: str) -> None:
    SyncAccount.objects.filter(pk=account.pk).update(polling_error=error[:2000])


def _account(integration: Integration) -> SyncAccount:
    key: dict[str, Any] = {
        "integration": integration.name,
        "account": integration.account,
        "livemode": integration.livemode,
    }
    account, _ = SyncAccount.objects.get_or_create(**key)
    return account
