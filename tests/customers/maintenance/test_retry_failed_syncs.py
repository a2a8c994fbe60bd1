from __future__ import annotations

import io
import json
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from customers.integrations import PermanentError
from customers.models import Customer, SyncState
from customers.services import customer_create, customer_update
from customers.sync.trying_again import failed_syncs_retry_once
from operations.models import AuditEntry, Operation
from tests.customers.conftest import Api
from tests.customers.sync.conftest import Side
from tests.customers.sync.memory import Call, MemoryIntegration
from tests.operations.conftest import MakeClient

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.feature("C12")]

PATHS = ["/customers/retry-failed-syncs", "/api/v1/customers/retry-failed-syncs/"]


@pytest.fixture
def repairer(db: None) -> Api:
    return Api("operations:read", "operations:write")


@pytest.fixture
def failed(side: Side) -> list[Customer]:
    """Two customers that the other side refused, and what it would take now."""
    code = ["account_limited", "email_invalid"]

    def refuse(call: Call) -> None:
        if code:
            raise PermanentError("no", code=code.pop(0))

    side.world.before.append(refuse)
    customers = [customer_create(name="Ada"), customer_create(name="Bob", email="bob@example.com")]
    side.rest()
    assert set(SyncState.objects.values_list("status", flat=True)) == {"failed"}
    return customers


def make_older(hours: float, *, failing: float | None = None) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE customers_syncstate SET updated_at = updated_at - make_interval(secs => %s),"
            " failing_since = failing_since - make_interval(secs => %s)",
            [hours * 3600, (hours if failing is None else failing) * 3600],
        )


@pytest.mark.feature("C13")
@pytest.mark.parametrize("path", PATHS)
def test_it_tries_all_again_and_says_so(side: Side, failed: list[Customer], repairer: Api, path: str) -> None:
    answer = repairer.post(f"{path}?integration_name=memory", None)
    states = set(SyncState.objects.values_list("status", "priority"))
    side.rest()

    assert answer.status_code == 200, answer.content
    assert answer.json()["result"] == {"retried": 2, "skipped": 0}
    assert states == {("pending", 2)}
    assert set(SyncState.objects.values_list("status", "failing_since")) == {("in_sync", None)}
    assert AuditEntry.objects.filter(action="operation.completed").count() == 1


@pytest.mark.feature("C13")
def test_a_dry_run_tells_which_and_tries_none(side: Side, failed: list[Customer], repairer: Api) -> None:
    answer = repairer.post(f"{PATHS[0]}?dry_run=true", None)

    assert (answer.status_code, answer.json()["filter"]["dry_run"]) == (200, True)
    assert answer.json()["result"] == {"dry_run": True, "would_retry": 2, "retried": 0, "skipped": 0}
    assert set(SyncState.objects.values_list("status", "dirty_at")) == {("failed", None)}


@pytest.mark.feature("C10")
def test_it_begins_nothing_twice_for_one_key(side: Side, failed: list[Customer], repairer: Api) -> None:
    answers = [repairer.post(PATHS[0], None, Idempotency_Key="once") for _ in range(3)]

    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert {answer.json()["id"] for answer in answers} == {Operation.objects.get().pk}
    assert [answer.get("Idempotent-Replayed") for answer in answers] == [None, "true", "true"]


def test_it_leaves_much_to_the_workers(
    side: Side, failed: list[Customer], repairer: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    from customers.api.maintenance_views import RetryFailedSyncsView

    monkeypatch.setattr(RetryFailedSyncsView, "small", 1)

    answer = repairer.post(PATHS[0], None)
    followed = repairer.get(answer["Location"])

    assert answer.status_code == 202
    assert (answer.json()["state"], answer["Retry-After"]) == ("running", "2")
    assert followed.json()["id"] == answer.json()["id"]


@pytest.mark.feature("A16")
@pytest.mark.parametrize(
    ("query", "body", "name"),
    [
        ("?integration_name=fax", None, "integration_name"),
        ("?integration=memory", None, "There is no such parameter."),
        ("?dry_run=maybe", None, "dry_run"),
        ("?integration_name=memory&integration_name=memory", None, "integration_name"),
        ("", {"integration_name": "memory"}, "integration_name"),
        ("", [1], ""),
    ],
)
def test_it_refuses_what_it_does_not_understand(side: Side, repairer: Api, query: str, body: Any, name: str) -> None:
    answer = repairer.post(PATHS[0] + query, body)

    assert answer.status_code == 400, answer.content
    assert name in str(answer.json()["errors"])
    assert not Operation.objects.exists()


@pytest.mark.feature("A16")
def test_it_is_for_those_who_may_look_again(side: Side, api: Api, staff_client: MakeClient) -> None:
    answers = [
        api.post(PATHS[0], None),
        *(staff_client(role).post(PATHS[0], content_type="application/json") for role in ("viewer", "operator")),
    ]

    assert [answer.status_code for answer in answers] == [403, 403, 200]


@pytest.mark.feature("C15", "F4")
def test_beat_tries_again_what_is_not_about_values(side: Side, failed: list[Customer]) -> None:
    assert failed_syncs_retry_once() == 0
    make_older(1)

    count = failed_syncs_retry_once()
    side.rest()

    assert count == 1
    assert side.state(failed[0]).status == "in_sync"
    assert side.state(failed[1]).status == "failed"
    assert AuditEntry.objects.get(action="syncs.retried").detail == {"integration": "memory", "count": 1}


@pytest.mark.feature("C15")
def test_beat_gives_up_after_a_day(side: Side, failed: list[Customer]) -> None:
    make_older(1, failing=25)

    assert failed_syncs_retry_once() == 0


@pytest.mark.feature("C15")
def test_a_change_here_begins_a_new_day(side: Side, failed: list[Customer]) -> None:
    make_older(1, failing=25)
    side.world.lose_requests(0)

    def refuse(call: Call) -> None:
        raise PermanentError("still no", code="account_limited")

    side.world.before.append(refuse)
    customer_update(customer_id=failed[0].pk, changes={"name": "Ada L."})
    side.rest()
    make_older(1)

    assert side.state(failed[0]).status == "failed"
    assert failed_syncs_retry_once() == 1


def test_the_command_counts_first_and_then_marks(side: Side, failed: list[Customer]) -> None:
    counted, done = io.StringIO(), io.StringIO()

    call_command("retry_failed_syncs", "--dry-run", stdout=counted)
    before = set(SyncState.objects.values_list("status", flat=True))
    call_command("retry_failed_syncs", "--integration", "memory", "--json", stdout=done)

    assert counted.getvalue() == "2 failed synchronisations would be tried again.\n"
    assert before == {"failed"}
    assert json.loads(done.getvalue())["result"] == {"retried": 2, "skipped": 0}
    side.rest()
    assert set(SyncState.objects.values_list("status", flat=True)) == {"in_sync"}


def test_the_command_names_an_integration_that_is_none(side: Side) -> None:
    with pytest.raises(CommandError, match="no such integration"):
        call_command("retry_failed_syncs", "--integration", "fax")


def test_beat_asks_the_index(side: Side, failed: list[Customer]) -> None:
    from customers.sync.trying_again import RETRYABLE_SQL

    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO customers_syncstate (integration, account, livemode, remote_id, status, poke_count, priority,"
            " attempts, correlation_id, traceparent, lease_token) SELECT 'memory', '', false, 'r' || n, 'in_sync', 0,"
            " 0, 0, '', '', 0 FROM generate_series(1, 20000) n"
        )
        cursor.execute("ANALYZE customers_syncstate")
        values = {"integration": "memory", "final": list(MemoryIntegration.final_codes), "after": 0, "limit": 1000}
        cursor.execute("EXPLAIN " + RETRYABLE_SQL, values)
        plan = "\n".join(row[0] for row in cursor.fetchall())

    assert "syncstate_by_status" in plan, plan
