from __future__ import annotations

import pytest
from django.db import IntegrityError, connection, transaction

from operations.audit import audit_record
from operations.correlation import correlation_bound
from operations.models import AuditEntry

pytestmark = pytest.mark.django_db


@pytest.mark.feature("C16")
def test_it_keeps_who_did_what_and_the_correlation_id() -> None:
    with correlation_bound("abc-1"):
        audit_record(actor="user:ann", action="delivery.retried", target="delivery:7", detail={"count": 3})

    entry = AuditEntry.objects.get()
    assert (entry.actor, entry.action, entry.target) == ("user:ann", "delivery.retried", "delivery:7")
    assert entry.detail == {"count": 3}
    assert entry.correlation_id == "abc-1"


@pytest.mark.feature("H8", "A13")
def test_it_keeps_what_people_wrote_out_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="operations.audit")

    audit_record(
        actor="user:ann", action="drift.declined", target="drift:7", detail={"reason": "Ada asked", "count": 3}
    )

    assert AuditEntry.objects.get().detail == {"reason": "Ada asked", "count": 3}
    assert "drift.declined" in caplog.text
    assert "Ada" not in caplog.text


@pytest.mark.parametrize(
    "statement", ["UPDATE operations_auditentry SET actor = 'x'", "DELETE FROM operations_auditentry"]
)
def test_it_refuses_to_rewrite_history(statement: str) -> None:
    audit_record(actor="user:ann", action="delivery.retried")

    with pytest.raises(IntegrityError, match="only ever added"), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(statement)

    assert AuditEntry.objects.get().actor == "user:ann"


def test_it_lets_retention_delete_where_it_says_so() -> None:
    audit_record(actor="user:ann", action="delivery.retried")

    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL zenskar.audit_retention = 'on'")
        cursor.execute("DELETE FROM operations_auditentry")

    assert not AuditEntry.objects.exists()
