"""Webhooks: stored first, answered, and only then turned into pokes.

What a message says about the record is never applied; it only says which record to look at. So late, doubled and
reordered messages are harmless, and a lost one is made up for by any later look.
"""

from __future__ import annotations

from typing import Any, Final

import orjson
import structlog
from django.conf import settings
from django.db import connection
from django.db.models.functions import Now

from customers.integrations import Integration, RemoteMessage
from customers.models import Priority, SyncState, Webhook
from customers.sync.verdicts import Verdicts
from dbresilience.transactions import run_in_transaction
from operations.correlation import correlation_id, correlations_named
from operations.tracing import traceparent
from outbox.wakeup import wake

log = structlog.get_logger(__name__)

ERASED_BODY: Final = {"erased": True}
"""What is left of the body of a webhook about somebody who was erased."""

_BATCH: Final = 200

# One statement, since the other side waits for its answer. Two deliveries at the same moment meet at the unique index:
# one row is there, and the other delivery gets none back.
STORE_SQL: Final = """
INSERT INTO customers_webhook (integration, event_id, type, account, livemode, remote_id, payload, correlation_id,
                               traceparent, outcome, reason, processed_at)
VALUES (%(integration)s, %(event_id)s, %(type)s, %(account)s, %(livemode)s, %(remote_id)s, %(payload)s::jsonb,
        %(correlation_id)s, %(traceparent)s, %(outcome)s, %(reason)s,
        CASE WHEN %(outcome)s = 'pending' THEN NULL ELSE now() END)
ON CONFLICT (integration, event_id) DO NOTHING RETURNING id
"""


def webhook_store(integration: Integration, message: RemoteMessage) -> bool:
    """Keep a verified message, once.

    Messages of no interest are kept too, with the reason, so that an operator who misses something can see that it
    came.

    Returns:
        False when it was known already; the first one is kept as it is.
    """
    row = webhook_row(integration, message)
    values: dict[str, Any] = {
        "integration": row.integration,
        "event_id": row.event_id,
        "type": row.type,
        "account": row.account,
        "livemode": row.livemode,
        "remote_id": row.remote_id,
        "payload": orjson.dumps(row.payload).decode(),
        "correlation_id": row.correlation_id,
        "traceparent": row.traceparent,
        "outcome": row.outcome,
        "reason": row.reason,
    }
    with connection.cursor() as cursor:
        cursor.execute(STORE_SQL, values)
        is_new = cursor.fetchone() is not None
    if is_new and not row.reason:
        wake("webhooks")
    return is_new


def webhook_row(integration: Integration, message: RemoteMessage) -> Webhook:
    """A message as a row, not saved yet; with the reason if it is of no interest."""
    row = Webhook(
        integration=integration.name,
        event_id=message.event_id,
        type=message.type,
        account=message.account,
        livemode=message.livemode,
        remote_id=message.remote_id,
        payload=message.payload,
        correlation_id=correlation_id(),
        traceparent=traceparent(),
    )
    if reason := _not_ours(integration, message) or message.ignore:
        row.outcome, row.reason = Webhook.Outcome.IGNORED, reason
        row.processed_at = Now()
    return row


def webhooks_process_once(*, limit: int = _BATCH) -> int:
    """Turn stored webhooks into pokes, oldest first, in one transaction.

    SKIP LOCKED lets several workers share the work; a message and its poke commit together, so each has its effect
    exactly once.

    Returns:
        Webhooks that were worked on.
    """

    def work() -> list[str]:
        # Those of an integration that is not configured now wait until it is again.
        pending = Webhook.objects.pending().filter(integration__in=list(settings.INTEGRATIONS))
        is_emptied = False
        batch = list(pending.select_for_update(skip_locked=True).order_by("id")[:limit])
        if not batch:
            return []
        verdicts = Verdicts(batch)
        for webhook in batch:
            verdict = verdicts.of(webhook)
            webhook.outcome = Webhook.Outcome.IGNORED if verdict.reason else Webhook.Outcome.POKED
            webhook.reason = verdict.reason
            webhook.caused_by = verdicts.request_behind(webhook)
            webhook.processed_at = Now()
            if verdicts.is_erased(webhook):
                webhook.payload = ERASED_BODY
                is_emptied = True
        poked = sorted(verdicts.poked)
        if poked:
            SyncState.objects.filter(pk__in=poked).look_again(priority=Priority.WEBHOOK)
            verdicts.write_causes()
        columns = ["outcome", "reason", "caused_by", "processed_at"]
        Webhook.objects.bulk_update(batch, [*columns, "payload"] if is_emptied else columns)
        return [verdicts.cause(webhook)[0] for webhook in batch]

    found = run_in_transaction(work)
    if found:
        wake("sync")
        log.info("webhooks_processed", count=len(found), correlation_ids=correlations_named(found))
    return len(found)


def _not_ours(integration: Integration, message: RemoteMessage) -> str:
    if message.account and message.account != integration.account:
        return "of another account"
    if message.livemode != integration.livemode:
        return "live, but the key in use is a test key" if message.livemode else "a test, but the key in use is live"
    return ""
