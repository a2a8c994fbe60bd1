"""Webhooks: stored first, answered, and only then turned into pokes.

What a message says about the record is never applied; it only says which record to look at. So late, doubled and
reordered messages are harmless, and a lost one is made up for by any later look.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import orjson
import structlog
from django.conf import settings
from django.db import connection
from django.db.models import Q
from django.db.models.functions import Now

from customers.integrations import Integration, RemoteMessage, RemoteRecord, integration_get
from customers.models import Drift, Erasure, Priority, Saga, SyncRequest, SyncState, Webhook
from customers.sync.fields import fields_hash, root_of
from dbresilience.transactions import run_in_transaction
from operations.correlation import correlation_id, correlations_named
from operations.identifiers import uuid_of
from operations.tracing import traceparent
from outbox.wakeup import wake

log = structlog.get_logger(__name__)

ERASED_BODY: Final = {"erased": True}
"""What is left of the body of a webhook about somebody who was erased."""

_BATCH: Final = 200
_UNMADE: Final = "made by a protected change that was undone"

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
# A remote record that nobody knows yet becomes an unlinked row. Two messages about it, also in two workers, meet at
# the unique index and leave one row.
UNLINKED_SQL: Final = """
INSERT INTO customers_syncstate AS s
       (integration, account, livemode, remote_id, priority, dirty_at, poke_count, next_attempt_at,
        correlation_id, traceparent)
VALUES (%(integration)s, %(account)s, %(livemode)s, %(remote_id)s, %(priority)s, clock_timestamp(), 1,
        clock_timestamp(), %(correlation_id)s, %(traceparent)s)
ON CONFLICT (integration, account, livemode, remote_id) DO UPDATE SET
       dirty_at = COALESCE(s.dirty_at, excluded.dirty_at), poke_count = s.poke_count + 1,
       correlation_id = excluded.correlation_id, traceparent = excluded.traceparent
"""
# Rows that this transaction has just marked, each with what its webhook came from.
CAUSES_SQL: Final = """
UPDATE customers_syncstate AS s SET correlation_id = c.correlation_id, traceparent = c.traceparent
  FROM unnest(%(states)s::bigint[], %(correlations)s::text[], %(traces)s::text[])
    AS c (state, correlation_id, traceparent) WHERE s.id = c.state
"""


@dataclass(frozen=True, slots=True)
class _Verdict:
    state_ids: frozenset[int] = frozenset()
    reason: str = ""


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
        verdicts = _Verdicts(batch)
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


class _Verdicts:
    """What each webhook of a batch means, decided under the locks of the states that it may be about."""

    def __init__(self, batch: list[Webhook]) -> None:
        self.poked: set[int] = set()
        self._causes: dict[int, tuple[str, str]] = {}
        self._integrations: dict[str, Integration] = {}
        self._read = {webhook.pk: self._record(webhook) for webhook in batch}
        wanted = Q(pk__in=[])
        for webhook in batch:
            wanted |= Q(integration=webhook.integration, remote_id=webhook.remote_id)
            if reference := self._reference(webhook):
                wanted |= Q(integration=webhook.integration, customer_id=reference)
        # A protected create has no customer yet; its states are found by the one that it is for.
        references = {reference for webhook in batch if (reference := self._reference(webhook))}
        creates = dict(
            Saga.objects.open()
            .filter(customer_id__in=references, action=Saga.Action.CREATE)
            .values_list("pk", "customer_id")
        )
        if creates:
            wanted |= Q(saga__in=list(creates))
        # Locked in the order in which pokes lock, so that the two queue.
        states = list(SyncState.objects.filter(wanted).select_for_update(no_key=True).order_by("customer_id", "id"))
        self._by_remote = {(s.integration, s.account, s.livemode, s.remote_id): s for s in states if s.remote_id}
        self._by_customer = {(s.integration, s.customer_id): s for s in states if s.customer_id}
        # People who were erased: what still comes of them is not kept.
        self.erased = set(
            Erasure.objects.filter(pk__in={state.customer_id for state in states}).values_list("pk", flat=True)
        )
        self._by_customer |= {(s.integration, creates[s.saga_id]): s for s in states if s.saga_id in creates}
        self._in_flight = set(SyncRequest.objects.in_flight().filter(state__in=states).values_list("state", flat=True))
        # Where a comparison found a difference, news that all is as it was ends it: that is worth a look.
        at_odds = Drift.objects.open().filter(state__in=states, kind=Drift.Kind.FIELD_DIFFERENCE)
        self._at_odds = set(at_odds.values_list("state", flat=True))
        # Requests of ours that caused a message, by their idempotency keys.
        uids = {uid for _, key in self._read.values() if (uid := uuid_of(key.rpartition(":")[0])) is not None}
        requests = SyncRequest.objects.filter(uid__in=uids).select_related("state") if uids else []
        self._requests = {request.key: request for request in requests}

    def of(self, webhook: Webhook) -> _Verdict:
        """Decide one, and note which state it pokes."""
        verdict = self._decide(webhook)
        self.poked |= verdict.state_ids
        self._causes |= dict.fromkeys(verdict.state_ids, self.cause(webhook))
        return verdict

    def is_erased(self, webhook: Webhook) -> bool:
        """Whether a message is about somebody who was erased here, or who never came to be: their create was undone."""
        key = (webhook.integration, self._integration(webhook.integration).account, webhook.livemode, webhook.remote_id)
        state = self._by_remote.get(key)
        if webhook.reason == _UNMADE or self._reference(webhook) in self.erased:
            return True
        if state is None:
            return False
        is_nobody = state.customer_id is None and state.status == SyncState.Status.DELETED
        return is_nobody or state.customer_id in self.erased

    def request_behind(self, webhook: Webhook) -> SyncRequest | None:
        """The request of ours that a webhook tells of, if it is one."""
        return self._requests.get(self._read[webhook.pk][1])

    def cause(self, webhook: Webhook) -> tuple[str, str]:
        """Correlation id and trace of what a webhook tells: of our own request, else of the one that brought it."""
        found = self.request_behind(webhook) or webhook
        return found.correlation_id, found.traceparent

    def write_causes(self) -> None:
        """Note at the poked states what they were poked for."""
        values: dict[str, Any] = {
            "states": list(self._causes),
            "correlations": [one[0] for one in self._causes.values()],
            "traces": [one[1] for one in self._causes.values()],
        }
        with connection.cursor() as cursor:
            cursor.execute(CAUSES_SQL, values)

    def _decide(self, webhook: Webhook) -> _Verdict:
        integration = self._integration(webhook.integration)
        account = integration.account
        record, key = self._read[webhook.pk]
        state = self._by_remote.get((webhook.integration, account, webhook.livemode, webhook.remote_id))
        if state is not None:
            if self._says_nothing_new(integration, state, record, key):
                return _Verdict(reason="nothing new: an echo")
            return _Verdict(frozenset({state.pk}))
        if record is not None and record.deleted:
            return _Verdict(reason="deleted there, and never known here")
        creator = self._creator(webhook, key)
        if creator is not None and creator.customer_id is None and not self._is_wanted(creator):
            return _Verdict(reason=_UNMADE)
        if creator is not None:
            # Our own create, whose answer is not in yet: importing it would make a second customer.
            return _Verdict(frozenset({creator.pk}))
        with connection.cursor() as cursor:
            cursor.execute(
                UNLINKED_SQL,
                {
                    "integration": webhook.integration,
                    "account": account,
                    "livemode": webhook.livemode,
                    "remote_id": webhook.remote_id,
                    "priority": Priority.WEBHOOK,
                    "correlation_id": self.cause(webhook)[0],
                    "traceparent": self.cause(webhook)[1],
                },
            )
        return _Verdict()

    def _says_nothing_new(
        self, integration: Integration, state: SyncState, record: RemoteRecord | None, key: str
    ) -> bool:
        """Whether the message tells of our own request, or only repeats what the base says.

        A message that our own request caused says nothing new once that request is resolved, or while a worker waits
        for its answer: what else changed there has a message of its own. When nobody works on it, it is a reason to
        find out at once.

        The snapshot in a message may be trusted to be old news only of a row at rest, whose lock we hold: not dirty,
        not taken, nothing in flight. Then the next fetch comes after this moment. Of a row that is being worked on
        the same words could mean "changed back while you pushed".
        """
        request = self._requests.get(key)
        if request is not None and request.state_id == state.pk:
            if request.resolved_at is None:
                return state.lease_until is not None
            return request.outcome in (SyncRequest.Outcome.SUCCEEDED, SyncRequest.Outcome.ADOPTED)
        at_rest = (
            state.dirty_at is None
            and state.lease_until is None
            and state.saga_id is None
            and state.pk not in self._in_flight
        )
        if at_rest and state.status == SyncState.Status.DELETED:
            return True
        if record is None or record.deleted or not at_rest or state.status != SyncState.Status.IN_SYNC:
            return False
        held = {name: value for name, value in record.fields.items() if root_of(name) in integration.roots}
        return bool(state.base_hash) and fields_hash(held) == state.base_hash and state.pk not in self._at_odds

    def _creator(self, webhook: Webhook, key: str) -> SyncState | None:
        reference = self._reference(webhook)
        state = self._by_customer.get((webhook.integration, reference)) if reference else None
        if state is not None and state.remote_id is None and state.pk in self._in_flight:
            return state
        request = self._requests.get(key)
        return request.state if request is not None and request.state.remote_id is None else None

    def _is_wanted(self, state: SyncState) -> bool:
        """Whether the protected create that a row without a customer belongs to may still come to one."""
        return state.saga_id is not None and Saga.objects.open().filter(pk=state.saga_id).exists()

    def _reference(self, webhook: Webhook) -> UUID | None:
        record, _ = self._read[webhook.pk]
        return uuid_of(record.reference) if record is not None else None

    def _record(self, webhook: Webhook) -> tuple[RemoteRecord | None, str]:
        return self._integration(webhook.integration).webhook_record(webhook.payload)

    def _integration(self, name: str) -> Integration:
        if name not in self._integrations:
            self._integrations[name] = integration_get(name)
        return self._integrations[name]


def _not_ours(integration: Integration, message: RemoteMessage) -> str:
    if message.account and message.account != integration.account:
        return "of another account"
    if message.livemode != integration.livemode:
        return "live, but the key in use is a test key" if message.livemode else "a test, but the key in use is live"
    return ""
