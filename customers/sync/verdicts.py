"""What each webhook of a batch means: which sync states it pokes, or why none.

Decided under the locks of those states, for what a message says may be old news only of a row at rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from django.db import connection
from django.db.models import Q

from customers.integrations import Integration, RemoteRecord, integration_get
from customers.models import Drift, Erasure, Priority, Saga, SyncRequest, SyncState, Webhook
from customers.sync.fields import fields_hash, root_of
from operations.identifiers import uuid_of

_UNMADE: Final = "made by a protected change that was undone"

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
class Verdict:
    """What one webhook means.

    Attributes:
        state_ids: the states that it pokes.
        reason: why it pokes none; empty also where the record became an unlinked row of its own.
    """

    state_ids: frozenset[int] = frozenset()
    reason: str = ""


class Verdicts:
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

    def of(self, webhook: Webhook) -> Verdict:
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

    def _decide(self, webhook: Webhook) -> Verdict:
        integration = self._integration(webhook.integration)
        account = integration.account
        record, key = self._read[webhook.pk]
        state = self._by_remote.get((webhook.integration, account, webhook.livemode, webhook.remote_id))
        if state is not None:
            if self._says_nothing_new(integration, state, record, key):
                return Verdict(reason="nothing new: an echo")
            return Verdict(frozenset({state.pk}))
        if record is not None and record.deleted:
            return Verdict(reason="deleted there, and never known here")
        creator = self._creator(webhook, key)
        if creator is not None and creator.customer_id is None and not self._is_wanted(creator):
            return Verdict(reason=_UNMADE)
        if creator is not None:
            # Our own create, whose answer is not in yet: importing it would make a second customer.
            return Verdict(frozenset({creator.pk}))
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
        return Verdict()

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
