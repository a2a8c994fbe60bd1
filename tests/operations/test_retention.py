from __future__ import annotations

from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction

from operations import retention
from operations.audit import audit_record
from operations.models import Alert, AlertNotice, AuditEntry, Operation, OperationItem
from operations.retention import records_prune_once

pytestmark = [pytest.mark.django_db, pytest.mark.feature("C16", "D16")]

OLD = "2020-01-01T00:00:00Z"


def operation(state: str, finished_at: str | None, items: int = 5) -> Operation:
    made = Operation.objects.create(
        kind="k", filter={}, reason="r", actor="a", eligible=items, state=state, finished_at=finished_at
    )
    OperationItem.objects.bulk_create(OperationItem(operation=made, key=str(n)) for n in range(items))
    return made


def test_it_removes_what_is_over_and_old_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "AT_ONCE", 3)
    operation("completed", OLD)
    operation("cancelled", OLD, items=0)
    kept = [operation("completed", "2999-01-01T00:00:00Z"), operation("running", None), operation("paused", None)]
    for ended in (OLD, None):
        alert = Alert.objects.create(key="k", source="s", level="warning", title="t", ended_at=ended)
        AlertNotice.objects.create(alert=alert, kind="raised", channel="log")
    audit_record(actor="a", action="thing.done")

    assert records_prune_once() == 9

    assert set(Operation.objects.all()) == set(kept)
    assert OperationItem.objects.count() == 15
    assert Alert.objects.get().ended_at is None
    assert AlertNotice.objects.count() == 1
    assert AuditEntry.objects.count() == 1


def test_it_removes_old_audit_entries_when_told_to(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "AT_ONCE", 2)
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO operations_auditentry (at, actor, action, target, detail, correlation_id)"
            " SELECT '2020-01-01', 'a', 'old', '', '{}', '' FROM generate_series(1, 5)"
        )
    audit_record(actor="a", action="new")

    assert records_prune_once() == 0
    settings.AUDIT_RETENTION_DAYS = 30
    assert records_prune_once() == 5

    assert [entry.action for entry in AuditEntry.objects.all()] == ["new"]


@pytest.mark.django_db(transaction=True)
def test_it_leaves_the_trail_closed_to_everybody_else(settings: Any) -> None:
    audit_record(actor="a", action="new")
    settings.AUDIT_RETENTION_DAYS = 30
    records_prune_once()

    with pytest.raises(IntegrityError), transaction.atomic():
        AuditEntry.objects.all().delete()
