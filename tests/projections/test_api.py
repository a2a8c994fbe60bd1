from __future__ import annotations

from typing import Any

import pytest
from django.conf import LazySettings
from django.contrib.auth.models import Permission
from django.test import Client

from operations.long_actions.runner import operations_run_once
from operations.models import AuditEntry, Operation
from projections.documents import REDACTED
from projections.models import Build, Failure
from projections.projection import Batch
from projections.runner import projections_run_once
from tests.customers.conftest import Api
from tests.operations.conftest import MakeClient
from tests.projections.conftest import accounts, deposit, live, publish_deposits
from tests.projections.models_of_tests import Totals

HEALTH = "/api/v1/health"
ADMIN = "/api/v1/admin/projections"


@pytest.fixture
def viewer(totals: type[Totals]) -> Api:
    return Api("operations:read")


@pytest.fixture
def operator(totals: type[Totals]) -> Api:
    return Api("operations:read", "operations:write")


@pytest.fixture
def failing(totals: type[Totals]) -> Failure:
    publish_deposits(deposit("a", 3), deposit("bad", -500), "b", "bad")
    projections_run_once()
    return Failure.objects.get()


@pytest.mark.feature("E6")
@pytest.mark.parametrize("slash", ["", "/"])
def test_it_tells_how_read_models_are(viewer: Api, failing: Failure, slash: str) -> None:
    all_of_it = viewer.get(f"{HEALTH}/projections{slash}").json()
    one = viewer.get(f"{HEALTH}/projections/totals{slash}").json()
    checkpoint = viewer.get(f"{HEALTH}/projections/totals/checkpoint{slash}").json()
    system = viewer.get(f"{HEALTH}{slash}").json()

    assert all_of_it["status"] == "degraded"
    assert one["active_failures"] == all_of_it["projections"]["totals"]["active_failures"] == 1
    assert (one["status"], one["version"], one["state"], one["lag_events"]) == ("degraded", 1, "live", 0)
    assert checkpoint["last_event_sequence"] == live().cursor == checkpoint["head"]
    assert (checkpoint["events_processed"], checkpoint["last_event_type"]) == (2, "deposited")
    assert system["projections"] == {"totals": "degraded"}
    assert set(system["components"]) >= {"database", "redis"}


@pytest.mark.feature("E6")
def test_it_lists_failures_newest_first_in_pages(operator: Api) -> None:
    publish_deposits(*[deposit(f"bad{n}", -500) for n in range(3)])
    projections_run_once()

    first = operator.get(f"{HEALTH}/projections/totals/failures?page_size=2").json()
    second = operator.get(first["next"]).json()

    rows = [*first["results"], *second["results"]]
    assert [row["aggregate_id"] for row in rows] == ["bad2", "bad1", "bad0"]
    assert second["next"] is None
    assert rows[0]["error_type"] == "IntegrityError"
    assert "test_totals_floor" in rows[0]["error_message"]
    assert operator.get(f"{HEALTH}/projections/totals/failures?state=resolved").json()["results"] == []


@pytest.mark.feature("E9")
def test_it_hides_what_errors_said_from_those_who_only_look(viewer: Api, failing: Failure) -> None:
    (row,) = viewer.get(f"{HEALTH}/projections/totals/failures").json()["results"]

    assert (row["error_message"], row["error_traceback"]) == (REDACTED, REDACTED)
    assert row["error_class"] == "poison"


@pytest.mark.feature("E9")
def test_the_roles_decide_what_people_see(failing: Failure, staff_client: MakeClient) -> None:
    path = f"{HEALTH}/projections/totals/failures"

    seen = {role: staff_client(role).get(path).json()["results"][0]["error_message"] for role in ("viewer", "operator")}

    assert seen["viewer"] == REDACTED
    assert "test_totals_floor" in seen["operator"]
    assert (
        Permission.objects.filter(codename__in=["resolve_failure", "see_failure_detail"], group__name="viewer").count()
        == 0
    )


@pytest.mark.feature("E9", "A16")
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", HEALTH),
        ("GET", f"{HEALTH}/projections"),
        ("GET", f"{HEALTH}/projections/totals"),
        ("GET", f"{HEALTH}/projections/totals/checkpoint"),
        ("GET", f"{HEALTH}/projections/totals/failures"),
        ("GET", f"{ADMIN}/status"),
        ("POST", f"{ADMIN}/totals/replay"),
        ("POST", f"{ADMIN}/totals/reset"),
        ("POST", f"{ADMIN}/failures/1/resolve"),
    ],
)
def test_it_is_closed(totals: type[Totals], client: Client, method: str, path: str) -> None:
    assert client.generic(method, path).status_code == 401
    assert Api("customers:read", "customers:write")(method, path, {}).status_code == 403
    if method == "POST":
        assert Api("operations:read")(method, path, {}).status_code == 403
        assert Api("operations:read", "operations:write").get(path).status_code == 405


@pytest.mark.feature("E7")
def test_it_shows_all_builds(viewer: Api, failing: Failure) -> None:
    found = viewer.get(f"{ADMIN}/status").json()

    (one,) = found["projections"]
    assert (one["name"], one["keyed_by"], one["compensations"]) == ("totals", "account", ["credit_one"])
    assert [build["state"] for build in one["builds"]] == ["live"]
    assert found["status"] == "degraded"


@pytest.mark.parametrize("path", [f"{HEALTH}/projections/nothing", f"{HEALTH}/projections/nothing/failures"])
def test_it_does_not_know_other_projections(viewer: Api, path: str) -> None:
    answer = viewer.get(path)

    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_projection")


def test_it_says_that_nothing_was_built(viewer: Api) -> None:
    assert viewer.get(f"{HEALTH}/projections/totals").json()["status"] == "offline"
    assert viewer.get(f"{HEALTH}/projections").json()["status"] == "offline"
    assert viewer.get(f"{HEALTH}/projections/totals/checkpoint").status_code == 409


@pytest.mark.feature("E7", "E9")
def test_it_resolves_a_failure(operator: Api, failing: Failure) -> None:
    path = f"{ADMIN}/failures/{failing.pk}/resolve"
    body = {"failure_id": str(failing.pk), "compensation_strategy": "manual_fix"}

    without_note = operator.post(path, body)
    done = operator.post(path, {**body, "note": "set the total in psql"})
    again = operator.post(path, {**body, "note": "once more"})
    projections_run_once()

    assert (without_note.status_code, without_note.json()["errors"][0]["pointer"]) == (400, "/note")
    assert done.status_code == 200
    assert (done.json()["state"], done.json()["strategy"]) == ("resolved", "manual_fix")
    assert (again.status_code, again.json()["code"]) == (409, "already_resolved")
    assert accounts()["bad"] == (1, 2)
    assert AuditEntry.objects.filter(action="projection_failure.resolved").count() == 1


@pytest.mark.feature("E7")
@pytest.mark.parametrize(
    ("body", "state", "rows"),
    [
        ({"compensation_strategy": "compensate", "compensation": "credit_one"}, "resolved", (2, 2)),
        ({"compensation_strategy": "compensate", "note": "as agreed"}, "resolved", (2, 2)),
        ({"compensation_strategy": "rebuild_aggregate"}, "retrying", (6, 2)),
    ],
)
def test_it_resolves_with_a_function_and_with_rows_computed_anew(
    operator: Api, failing: Failure, body: Any, state: str, rows: tuple[int, int]
) -> None:
    def mend(batch: Batch) -> None:
        events = [
            event._replace(payload_text='{"amount": 5}') if event.payload["amount"] < 0 else event for event in batch
        ]
        object.__setattr__(batch, "events", events)

    Totals.before = staticmethod(mend)

    answer = operator.post(f"{ADMIN}/failures/{failing.pk}/resolve", body)
    projections_run_once()

    assert (answer.status_code, answer.json()["state"]) == (200, state)
    assert accounts()["bad"] == rows
    failing.refresh_from_db()
    assert (failing.state, failing.strategy) == ("resolved", body["compensation_strategy"])


@pytest.mark.feature("E7")
def test_it_tells_that_a_function_raised(operator: Api, failing: Failure, monkeypatch: pytest.MonkeyPatch) -> None:
    def credit(projection: Totals, batch: Batch) -> None:
        raise ValueError("private@example.com")

    monkeypatch.setattr(Totals, "_credit_one", credit)

    answer = operator.post(f"{ADMIN}/failures/{failing.pk}/resolve", {"compensation_strategy": "compensate"})

    failing.refresh_from_db()
    assert (answer.status_code, answer.json()["code"]) == (409, "compensation_failed")
    assert "private" not in answer.content.decode()
    assert failing.state == "retrying"


@pytest.mark.feature("E7")
@pytest.mark.parametrize(
    ("failure", "body", "status"),
    [
        ("0", {"compensation_strategy": "skip"}, 404),
        ("abc", {"compensation_strategy": "skip"}, 404),
        ("99999999999999999999999", {"compensation_strategy": "skip"}, 404),
        ("own", {"compensation_strategy": "ignore"}, 400),
        ("own", {}, 400),
        ("own", {"failure_id": "1234567", "compensation_strategy": "skip"}, 400),
        ("own", {"compensation_strategy": "skip", "force": True}, 400),
        ("own", {"compensation_strategy": "compensate", "compensation": "none"}, 400),
        ("own", b"{", 400),
        ("own", [], 400),
    ],
)
def test_it_refuses_what_is_no_decision(operator: Api, failing: Failure, failure: str, body: Any, status: int) -> None:
    answer = operator.post(f"{ADMIN}/failures/{failing.pk if failure == 'own' else failure}/resolve", body)

    assert answer.status_code == status
    assert answer["Content-Type"] == "application/problem+json"
    failing.refresh_from_db()
    assert failing.state == "retrying"


@pytest.mark.feature("E7")
def test_it_replays_a_range_as_an_operation(operator: Api, failing: Failure) -> None:
    before = accounts()
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("UPDATE test_totals SET total = 999 WHERE account = 'a'")
        cursor.execute("DELETE FROM test_totals WHERE account = 'b'")

    first = live().cursor - 3
    dry = operator.post(f"{ADMIN}/totals/replay", {"from_sequence": first, "dry_run": True})
    answer = operator.post(f"{ADMIN}/totals/replay", {"from_sequence": first, "to_sequence": None})
    second = operator.post(f"{ADMIN}/totals/replay", {"from_sequence": 1})
    while operations_run_once():
        pass

    assert (dry.status_code, dry.json()["plan"]["eligible"]) == (200, 1)
    assert answer.status_code == 202
    assert (second.status_code, second.json()["code"]) == (409, "replay_running")
    operation = Operation.objects.get(pk=answer.json()["id"])
    assert (operation.state, operation.succeeded) == ("completed", 1)
    assert accounts() == before
    assert operator.get(answer["Location"]).json()["state"] == "completed"


@pytest.mark.feature("E7")
def test_a_replay_from_the_checkpoint_waits_until_the_head_is_reached(operator: Api, failing: Failure) -> None:
    publish_deposits("a", "c")
    from outbox.sequencing import Sequencer

    Sequencer().sequence_once()

    answer = operator.post(f"{ADMIN}/totals/replay", {"from_sequence": None, "to_sequence": None})
    operations_run_once()
    waiting = Operation.objects.get(pk=answer.json()["id"]).state
    projections_run_once()
    Operation.objects.update(next_step_at="2000-01-01T00:00Z")
    while operations_run_once():
        pass

    assert waiting == "running"
    assert Operation.objects.get(pk=answer.json()["id"]).state == "completed"
    assert accounts()["a"] == (4, 2)


@pytest.mark.feature("E7")
def test_it_replays_one_aggregate(operator: Api, failing: Failure) -> None:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("UPDATE test_totals SET total = 999")

    answer = operator.post(
        f"{ADMIN}/totals/replay", {"from_sequence": 1, "aggregate_type": "account", "aggregate_id": "a"}
    )
    while operations_run_once():
        pass

    assert answer.status_code == 202
    assert accounts() == {"a": (3, 1), "b": (999, 1)}


@pytest.mark.feature("E7")
@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"from_sequence": 3, "to_sequence": 2}, "/from_sequence"),
        ({"to_sequence": 10**9}, "/to_sequence"),
        ({"from_sequence": -1}, "/from_sequence"),
        ({"from_sequence": "x"}, "/from_sequence"),
        ({"from_sequence": 10**9}, "/from_sequence"),
        ({"from_sequence": 1, "aggregate_type": "account"}, "/aggregate_id"),
        ({"from_sequence": 1, "aggregate_type": "pet", "aggregate_id": "1"}, "/aggregate_type"),
        ({"from_sequence": 1, "rate": 0}, "/rate"),
        ({"speed": 1}, "/speed"),
    ],
)
def test_it_refuses_ranges_that_are_none(operator: Api, failing: Failure, body: Any, pointer: str) -> None:
    answer = operator.post(f"{ADMIN}/totals/replay", body)

    assert answer.status_code == 400, answer.content
    assert answer.json()["errors"][0]["pointer"] == pointer
    assert not Operation.objects.exists()


@pytest.mark.feature("E9")
def test_it_lets_nobody_start_replay_after_replay(operator: Api, failing: Failure, settings: LazySettings) -> None:
    settings.PROJECTIONS_REPLAYS_PER_MINUTE = 2

    answers = [operator.post(f"{ADMIN}/totals/replay", {"from_sequence": 1, "dry_run": True}) for _ in range(6)]

    assert 429 in [answer.status_code for answer in answers]
    assert int(answers[-1]["Retry-After"]) <= 60


@pytest.mark.feature("E7", "E9")
def test_it_resets_with_a_token_only(operator: Api, failing: Failure) -> None:
    path = f"{ADMIN}/totals/reset"
    old = live().pk
    token = operator.post(path, {}).json()["confirmation_token"]
    stranger = Api("operations:read", "operations:write")

    refused = [
        operator.post(path, {"confirmation_token": "x" + token}).status_code,
        stranger.post(path, {"confirmation_token": token}).status_code,
    ]
    kept = live().pk
    done = operator.post(path, {"confirmation_token": token})
    emptied = accounts()
    again = operator.post(path, {"confirmation_token": token})
    projections_run_once()

    assert refused == [409, 409]
    assert kept == old
    assert done.status_code == 202
    assert emptied == {}
    assert (again.status_code, again.json()["code"]) == (409, "confirmation_refused")
    assert accounts() == {"a": (3, 1), "b": (1, 1)}
    assert Build.objects.get(pk=old).state == "retired"
    assert Failure.objects.get(build=old).state == "resolved"
    assert Failure.objects.get(build=live()).state == "retrying"
    assert AuditEntry.objects.filter(action="projection.reset", target="projection:totals").count() == 1


@pytest.mark.feature("E7")
def test_it_refuses_to_replay_what_adds_up(both: None) -> None:
    publish_deposits("a")
    projections_run_once()
    operator = Api("operations:read", "operations:write")

    answer = operator.post(f"{ADMIN}/days/replay", {"from_sequence": 1})

    assert answer.status_code == 400
    assert "Rebuild it instead" in answer.json()["detail"]
