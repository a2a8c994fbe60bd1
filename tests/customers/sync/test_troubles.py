from __future__ import annotations

import pytest
from django.db import connection

from customers.models import Conflict, Customer, SyncState
from customers.sync.troubles import FailedSyncs, OpenConflicts
from operations.models import AuditEntry
from operations.troubles.services import troubles_page, troubles_retry
from operations.troubles.sources import sources

pytestmark = [pytest.mark.django_db, pytest.mark.feature("C12", "C6", "H4")]


def failed(code: str = "card_declined", *, status: str = "failed", count: int = 1) -> list[str]:
    found = []
    for _ in range(count):
        state = SyncState.objects.create(
            customer=Customer.objects.create(name="Known"),
            integration="stripe",
            livemode=False,
            status=status,
            last_error_class="Refused",
            last_error_code=code,
            last_error_message=f"It said {code}.",
        )
        found.append(str(state.pk))
    return found


def conflict(kind: str, field: str = "") -> str:
    state = SyncState.objects.get(pk=failed()[0])
    SyncState.objects.filter(pk=state.pk).update(status="conflict")
    return str(Conflict.objects.create(state=state, kind=kind, field=field).pk)


def test_it_is_registered() -> None:
    assert {"syncs", "conflicts"} <= {source.name for source in sources()}


def test_it_groups_failed_syncs_by_what_went_wrong() -> None:
    failed(count=3)
    failed("email_invalid")
    failed("", status="orphaned")
    failed(status="in_sync")

    groups = FailedSyncs().groups()

    assert [(group.fingerprint, group.count) for group in groups] == [
        ("stripe|failed|Refused|card_declined", 3),
        ("stripe|failed|Refused|email_invalid", 1),
        ("stripe|orphaned|Refused|", 1),
    ]
    assert groups[0].message == "It said card_declined."
    assert sum(groups[0].hours) == 3
    assert FailedSyncs().counts() == {"failed": 4, "orphaned": 1}
    assert [group.count for group in FailedSyncs().groups(fingerprint=groups[1].fingerprint)] == [1]


def test_it_pages_failed_syncs() -> None:
    ids = failed(count=5) + failed("x", status="orphaned", count=2)

    first, place = troubles_page([FailedSyncs()], fingerprint=None, place=("", ""), limit=4)
    assert place is not None
    rest, end = troubles_page([FailedSyncs()], fingerprint=None, place=place, limit=4)

    assert [trouble.id for _, trouble in first + rest] == ids[::-1]
    assert end is None
    assert {trouble.group for _, trouble in rest} == {"stripe|failed|Refused|card_declined"}


def test_it_looks_again_at_what_failed_and_nothing_else() -> None:
    ids = failed(count=2)
    other = failed(status="in_sync")

    retried = troubles_retry(source=FailedSyncs(), actor="user:ann", reason="r", ids=[*ids, *other, "x", "9" * 30])

    assert sorted(retried) == sorted(ids)
    assert SyncState.objects.filter(dirty_at__isnull=False).count() == 2
    assert AuditEntry.objects.filter(action="syncstate.poked", actor="user:ann").count() == 2


def test_it_looks_again_at_a_kind() -> None:
    ids = failed(count=2)
    failed("other")

    fingerprint = "stripe|failed|Refused|card_declined"

    assert sorted(troubles_retry(source=FailedSyncs(), actor="a", reason="", fingerprint=fingerprint)) == sorted(ids)


def test_it_groups_and_retries_conflicts() -> None:
    one, two = conflict("field", "name"), conflict("field", "metadata.plan")
    other = conflict("same_email")
    Conflict.objects.filter(pk=other).update(status="resolved", resolved_at="2026-01-01T00:00:00Z")
    source = OpenConflicts()

    groups = source.groups()
    troubles = source.troubles(fingerprint=groups[0].fingerprint)
    retried = troubles_retry(source=source, actor="a", reason="", ids=[one, other])

    assert [(group.fingerprint, group.count) for group in groups] == [("stripe|field", 2)]
    assert [trouble.id for trouble in troubles] == [two, one]
    assert troubles[0].about.endswith("metadata.plan")
    assert source.counts() == {"open": 2}
    assert list(retried) == [one]
    assert SyncState.objects.filter(dirty_at__isnull=False).count() == 1


@pytest.mark.parametrize("fingerprint", ["", "|", "||||||", "a|b|c|d|e", "stripe|failed", "x'%s"])
def test_it_finds_nothing_of_no_kind(fingerprint: str) -> None:
    failed()

    for source in (FailedSyncs(), OpenConflicts()):
        assert list(source.troubles(fingerprint=fingerprint)) == []
        assert list(source.groups(fingerprint=fingerprint)) == []


def test_it_reads_what_it_shows_however_much_went_well() -> None:
    failed()
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO customers_syncstate (integration, account, livemode, remote_id, status)"
            " SELECT 'stripe', '', false, 'cus_' || n, 'in_sync' FROM generate_series(1, 20000) n"
        )
        cursor.execute("ANALYZE customers_syncstate")
        from customers.sync.troubles import STATES_SQL

        cursor.execute("EXPLAIN " + STATES_SQL.replace("{more}", ""), {"most": 50})
        plan = "\n".join(row[0] for row in cursor.fetchall())

    assert "Seq Scan" not in plan, plan
