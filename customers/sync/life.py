"""What the synchronisation knows of the life of things: states, requests to integrations, and their webhooks."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Final

from django.db.models import QuerySet
from django.urls import reverse

from customers.events import AGGREGATE
from customers.models import Customer, SyncRequest, SyncState, Webhook
from operations.identifiers import uuids_of
from operations.life.sources import CORRELATION, Entry, LifeSource, Name, Subject, Term, Thread, Told, first_of
from operations.overview import Tone
from operations.page_values import words
from outbox.life import EVENT, LivedEvent, events_of
from outbox.masking import may_read_payload, payload_masked

REMOTE: Final = "remote"
REQUEST: Final = "request"
WEBHOOK: Final = "webhook"

_STATES: Final[dict[str, Tone]] = {"in_sync": "good", "conflict": "bad", "failed": "bad", "orphaned": "bad"}
_OUTCOMES: Final[dict[str, Tone]] = {"": "warn", "succeeded": "good", "adopted": "good", "refused": "bad"}


class SyncLife(LifeSource):
    """Where customers stand in integrations, and every writing request to them."""

    name = "sync"
    title = "Synchronisation"
    permission = "customers.view_syncstate"
    order = 50

    def recognise(self, term: Term) -> Sequence[Subject]:
        return [*_customers_named(term), *_remotes_named(term), *_requests_named(term), *_correlations_named(term)]

    def tell(self, thread: Thread) -> Told:
        requests, more = requests_of(thread)
        readable = may_read_payload(thread.request)
        thread.parts.update(Name("syncstate", str(state.pk)) for state in states_of(thread))
        entries = [_state(state) for state in states_of(thread)]
        return Told([*entries, *(_request(one, readable=readable) for one in requests)], more=more)


class WebhooksLife(LifeSource):
    """Messages of integrations, and what came of them."""

    name = "webhooks"
    title = "Webhooks"
    permission = "customers.view_webhook"
    order = 60

    def recognise(self, term: Term) -> Sequence[Subject]:
        value = term.of(WEBHOOK, "stripe") or term.text
        # By webhook_by_event_id, and by webhook_by_correlation.
        named = Webhook.objects.filter(event_id=value).select_related("caused_by").defer("payload")
        found = [_webhook_subject(one) for one in named[:2]]
        brought = term.of(CORRELATION) or term.text
        known = Webhook.objects.filter(correlation_id=brought).exclude(correlation_id="").exists()
        return [*found, *([_correlation(brought)] if known else [])]

    def tell(self, thread: Thread) -> Told:
        rows = Webhook.objects.select_related("caused_by").defer("payload")
        remotes = {state.remote_id for state in states_of(thread) if state.remote_id} | set(thread.named(REMOTE))
        asked = [
            # By the indexes webhook_by_event_id, webhook_by_cause, webhook_by_correlation and webhook_by_remote_id.
            first_of(rows.filter(event_id__in=thread.named(WEBHOOK)), "event_id"),
            first_of(rows.filter(caused_by__in=[one.pk for one in requests_of(thread)[0]]), "caused_by"),
            first_of(
                rows.filter(correlation_id__in=thread.named(CORRELATION)).exclude(correlation_id=""), "correlation_id"
            ),
            first_of(rows.filter(remote_id__in=remotes if _is_whole(thread) else []), "remote_id", "-id"),
        ]
        found = {one.pk: one for one in chain.from_iterable(part for part, _ in asked)}
        return Told([_webhook(one) for one in found.values()], more=any(more for _, more in asked))


def states_of(thread: Thread) -> Sequence[SyncState]:
    """The states of the customers and remote records that a thread is about as a whole."""
    return thread.once("sync.states", lambda: _states_of(thread))


def requests_of(thread: Thread) -> tuple[Sequence[SyncRequest], bool]:
    """The writing requests of a thread, and whether there are more."""
    return thread.once("sync.requests", lambda: _requests_of(thread))


def _is_whole(thread: Thread) -> bool:
    """Whether all of a customer's life is asked for, and not that of one event or request of it."""
    return bool(thread.named(AGGREGATE) or thread.named(REMOTE))


def _states_of(thread: Thread) -> Sequence[SyncState]:
    rows = SyncState.objects.defer("base")
    # By the index of the foreign key, and by syncstate_by_remote_id.
    linked, _ = first_of(rows.filter(customer__in=uuids_of(thread.named(AGGREGATE))), "customer")
    remote, _ = first_of(rows.filter(remote_id__in=thread.named(REMOTE)), "remote_id")
    return list({state.pk: state for state in (*linked, *remote)}.values())


def _requests_of(thread: Thread) -> tuple[Sequence[SyncRequest], bool]:
    rows = SyncRequest.objects.select_related("state")
    correlations = thread.named(CORRELATION)
    asked = [
        # By the indexes customers_syncrequest_key_uniq, syncrequest_by_correlation and syncrequest_by_state.
        first_of(rows.filter(uid__in=uuids_of(key.rpartition(":")[0] for key in thread.named(REQUEST))), "uid"),
        first_of(rows.filter(correlation_id__in=correlations).exclude(correlation_id=""), "correlation_id", "id"),
        first_of(rows.filter(state__in=[state.pk for state in states_of(thread)]), "state", "-id"),
    ]
    found = {one.pk: one for one in chain.from_iterable(part for part, _ in asked)}
    if not found and thread.named(EVENT):
        found = {one.pk: one for one in _next_request(thread, rows)}
    return list(found.values()), any(more for _, more in asked)


def _next_request(thread: Thread, rows: QuerySet[SyncRequest]) -> Sequence[SyncRequest]:
    """The first request after an event whose own correlation id none carries: changes that come close together go out
    as one, under the id of the last of them."""
    event = _event_asked(thread)
    ids = uuids_of([event.aggregate_id]) if event is not None and event.aggregate_type == AGGREGATE else []
    if event is None or not ids or not event.correlation_id or event.origin not in ("api", "console", "import"):
        return []
    after = rows.filter(state__customer__in=ids, first_sent_at__gte=event.created_at)
    return list(after.order_by("state", "id")[:1])


def _event_asked(thread: Thread) -> LivedEvent | None:
    asked = thread.named(EVENT)
    return next((event for event in events_of(thread)[0] if str(event.id) in asked), None)


def _customers_named(term: Term) -> list[Subject]:
    ids = uuids_of([term.of(AGGREGATE) or term.text])
    found = Customer.objects.filter(pk__in=ids).values_list("pk", flat=True)
    return [Subject(name=Name(AGGREGATE, str(pk)), title=f"Customer {pk}") for pk in found]


def _remotes_named(term: Term) -> list[Subject]:
    """A record of an integration: its customer, or itself while it is linked to none."""
    value = term.of(REMOTE, "stripe") or term.text
    # By syncstate_by_remote_id.
    states = SyncState.objects.filter(remote_id=value).only("customer_id", "integration", "remote_id")[:2]
    found = []
    for state in states:
        title, remote = f"{state.integration} {value}", Name(REMOTE, value)
        own = Name(AGGREGATE, str(state.customer_id)) if state.customer_id else remote
        found.append(Subject(name=own, title=title, others=frozenset({remote} - {own})))
    return found


def _requests_named(term: Term) -> list[Subject]:
    """A request, by its idempotency key."""
    uid, _, generation = (term.of(REQUEST) or term.text).rpartition(":")
    ids = uuids_of([uid]) if generation.isascii() and generation.isdigit() and len(generation) < 5 else []
    # By customers_syncrequest_key_uniq.
    found = SyncRequest.objects.filter(uid__in=ids, generation=int(generation) if ids else 0)[:1]
    return [
        Subject(name=Name(REQUEST, one.key), title=f"Request {one.key}", others=_correlations(one.correlation_id))
        for one in found
    ]


def _correlations_named(term: Term) -> list[Subject]:
    value = term.of(CORRELATION) or term.text
    # By syncrequest_by_correlation.
    known = SyncRequest.objects.filter(correlation_id=value).exclude(correlation_id="").exists()
    return [_correlation(value)] if known else []


def _webhook_subject(one: Webhook) -> Subject:
    names = {Name(REQUEST, one.caused_by.key)} if one.caused_by is not None else set()
    cause = one.caused_by.correlation_id if one.caused_by is not None else ""
    others = frozenset(names) | _correlations(one.correlation_id) | _correlations(cause)
    return Subject(name=Name(WEBHOOK, one.event_id), title=f"Webhook {one.event_id}: {one.type}", others=others)


def _correlation(value: str) -> Subject:
    return Subject(name=Name(CORRELATION, value), title=f"Correlation id {value}")


def _correlations(value: str) -> frozenset[Name]:
    return frozenset({Name(CORRELATION, value)} if value else ())


def _state(state: SyncState) -> Entry:
    waits = f"waits since {state.dirty_at:%Y-%m-%d %H:%M:%S}" if state.dirty_at else ""
    error = " ".join(filter(None, (state.last_error_code, state.last_error_message)))
    remote = [Name(REMOTE, state.remote_id)] if state.remote_id else []
    return Entry(
        kind="sync_state",
        id=str(state.pk),
        what=f"{state.integration} {state.remote_id or 'not there yet'}, as it stands",
        at=state.updated_at,
        state=words(state.get_status_display()).lower(),
        tone=_STATES.get(state.status, "warn" if state.attempts else "plain"),
        attempts=state.attempts or None,
        text="; ".join(filter(None, (waits, error))),
        url=reverse("admin:customers_syncstate_change", args=[state.pk]),
        about=[*_customer(state), *remote, *_correlations(state.correlation_id)],
    )


def _request(one: SyncRequest, *, readable: bool) -> Entry:
    fields = ", ".join(sorted(one.fields)) if one.fields else ""
    error = " ".join(filter(None, (one.error_code, one.error_message)))
    return Entry(
        kind="sync_request",
        id=one.key,
        what=f"{words(one.get_method_display())} in {one.state.integration}",
        at=one.first_sent_at,
        ended_at=one.resolved_at,
        state=words(one.get_outcome_display()).lower(),
        tone=_OUTCOMES.get(one.outcome, "plain"),
        attempts=one.sends,
        text="; ".join(filter(None, (fields, error))),
        url=reverse("admin:customers_syncrequest_change", args=[one.pk]),
        about=[Name(REQUEST, one.key), *_customer(one.state), *_correlations(one.correlation_id)],
        data=one.body if readable else payload_masked(one.body),
    )


def _webhook(one: Webhook) -> Entry:
    shown: dict[str, tuple[str, Tone]] = {
        Webhook.Outcome.PENDING: ("waiting", "warn"),
        Webhook.Outcome.POKED: ("looked at", "good"),
        Webhook.Outcome.IGNORED: ("ignored", "plain"),
    }
    state, tone = shown[one.outcome]
    remote = [Name(REMOTE, one.remote_id)] if one.remote_id else []
    cause = [Name(REQUEST, one.caused_by.key)] if one.caused_by is not None else []
    return Entry(
        kind="webhook",
        id=one.event_id,
        what=f"{one.type} from {one.integration}",
        at=one.received_at,
        ended_at=one.processed_at,
        state=state,
        tone=tone,
        text=one.reason,
        url=reverse("admin:customers_webhook_change", args=[one.pk]),
        about=[Name(WEBHOOK, one.event_id), *cause, *remote, *_correlations(one.correlation_id)],
    )


def _customer(state: SyncState) -> list[Name]:
    return [Name(AGGREGATE, str(state.customer_id))] if state.customer_id else []
