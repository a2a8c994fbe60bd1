"""What this app knows of the life of things: requests that carried a key, and the audit trail."""

from __future__ import annotations

from collections.abc import Sequence

from django.urls import reverse

from operations.life.sources import CORRELATION, Entry, LifeSource, Name, Subject, Term, Thread, Told, first_of
from operations.models import AuditEntry, IdempotencyKey


def correlation_subject(value: str) -> Subject:
    """Everything that one request or task set in motion."""
    return Subject(name=Name(CORRELATION, value), title=f"Correlation id {value}")


class Calls(LifeSource):
    """Requests with an ``Idempotency-Key``; others leave no row of their own, but for the event that they wrote."""

    name = "calls"
    title = "API calls"
    permission = "operations.view_auditentry"
    order = 10

    def recognise(self, term: Term) -> Sequence[Subject]:
        value = term.of(CORRELATION) or term.text
        # By operations_idempotency_cause.
        known = IdempotencyKey.objects.filter(correlation_id=value).exclude(correlation_id="").exists()
        return [correlation_subject(value)] if known else []

    def tell(self, thread: Thread) -> Told:
        keys = IdempotencyKey.objects.defer("headers", "body")
        # By operations_idempotency_cause.
        asked = keys.filter(correlation_id__in=thread.named(CORRELATION)).exclude(correlation_id="")
        # By operations_idempotency_about.
        about = keys.filter(subject__in=_things(thread)).exclude(subject="")
        (one, one_more), (two, two_more) = first_of(asked, "correlation_id"), first_of(about, "subject")
        return Told([_call(row) for row in {row.pk: row for row in (*one, *two)}.values()], more=one_more or two_more)


class Audit(LifeSource):
    """What people and programs did, as the audit trail has it; asked last, when all parts of a thing are known."""

    name = "audit"
    title = "Audit trail"
    permission = "operations.view_auditentry"
    order = 90

    def recognise(self, term: Term) -> Sequence[Subject]:
        value = term.of(CORRELATION) or term.text
        # By operations_audit_correlation.
        return [correlation_subject(value)] if AuditEntry.objects.filter(correlation_id=value).exists() else []

    def tell(self, thread: Thread) -> Told:
        # By operations_audit_correlation.
        asked = AuditEntry.objects.filter(correlation_id__in=thread.named(CORRELATION))
        # By operations_audit_target.
        about = AuditEntry.objects.filter(target__in=[*_things(thread), *map(str, thread.parts)])
        (one, one_more), (two, two_more) = first_of(asked, "correlation_id"), first_of(about, "target", "-pk")
        return Told(
            [_audited(row) for row in {row.pk: row for row in (*one, *two)}.values()], more=one_more or two_more
        )


def _things(thread: Thread) -> list[str]:
    return [str(name) for name in thread.subject.names if name.kind != CORRELATION]


def _call(row: IdempotencyKey) -> Entry:
    known = row.status is not None
    return Entry(
        kind="call",
        id=str(row.pk),
        what=f"{row.method} {row.route}",
        at=row.created_at,
        state=str(row.status) if known else "in flight",
        tone="good" if row.status is not None and row.status < 400 else "warn",
        text=f"by {row.actor}",
        about=[Name(CORRELATION, row.correlation_id)] if row.correlation_id else [],
    )


def _audited(row: AuditEntry) -> Entry:
    return Entry(
        kind="audit",
        id=str(row.pk),
        what=row.action,
        at=row.at,
        text=f"{row.target} by {row.actor}".strip(),
        url=reverse("admin:operations_auditentry_change", args=[row.pk]),
        about=[Name(CORRELATION, row.correlation_id)] if row.correlation_id else [],
        data=row.detail or None,
    )
