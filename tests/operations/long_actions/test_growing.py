"""Items that lead to further items: a list whose length nobody knows is an operation too."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from io import StringIO
from typing import Any, ClassVar

import pytest
from django.core.management import call_command

from operations.long_actions import kinds
from operations.long_actions.documents import operation_document, progress_document
from operations.long_actions.kinds import Batch, Kind, NewItem, Outcome, Plan, succeeded
from operations.long_actions.planning import operation_create
from operations.long_actions.runner import operation_run, operations_run_once
from operations.long_actions.steering import operation_start
from operations.models import Operation, OperationItem
from tests.children import child_run
from tests.operations.conftest import MakeClient

pytestmark = [pytest.mark.feature("H4", "C11"), pytest.mark.django_db(transaction=True)]


class Pages(Kind):
    """Walks through twelve pages, each of which names the next one."""

    name = "tests.pages"
    title = "Walk through pages"
    permission = "outbox.view_delivery"
    transactional = False
    repeatable = True
    grows = True
    last: ClassVar[int] = 12

    def freeze(self, given: Any) -> dict[str, Any]:
        return {}

    def plan(self, frozen: Any) -> Plan:
        return Plan(eligible=4)

    def items(self, frozen: Any, *, after: str, limit: int) -> Sequence[NewItem]:
        return [] if after else [NewItem("page:1", {"page": 1})]

    def carry_out(self, batch: Batch) -> Sequence[Outcome]:
        outcomes = []
        for item in batch.items:
            page = item.data["page"]
            # Two of them name the same page: it is one item.
            names = {min(page + 1, self.last), min(page + 2, self.last)} - {page}
            outcomes.append(succeeded(item, then=[NewItem(f"page:{n}", {"page": n}) for n in sorted(names)]))
        return outcomes

    def result(self, operation: Operation) -> dict[str, Any]:
        return {"pages": operation.succeeded, "complete": operation.is_final, "side": "left", "of": {"odd_ones": 1_600}}


class Dying(Pages):
    """Kills its worker at page 5: before the outcome of that page is recorded."""

    def carry_out(self, batch: Batch) -> Sequence[Outcome]:
        if any(item.data["page"] == 5 for item in batch.items):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().carry_out(batch)


@pytest.fixture
def walk() -> Any:
    kinds.register(Pages())
    operation = operation_create(kind="tests.pages", filter={}, reason="see", actor="user:ann")
    yield operation_start(operation_id=operation.pk, actor="user:ann")
    kinds.unregister("tests.pages")


def test_it_carries_out_what_its_items_lead_to_once_each(walk: Operation) -> None:
    operation = operation_run(walk.pk, seconds=60)

    assert (operation.state, operation.items, operation.succeeded) == ("completed", 12, 12)
    assert operation_document(operation)["result"]["pages"] == 12
    assert progress_document(operation)["percent"] == 100.0


def test_what_came_of_it_is_told_in_console_and_command(walk: Operation, staff_client: MakeClient) -> None:
    out = StringIO()
    operation_run(walk.pk, seconds=60)

    call_command("operations", "show", str(walk.pk), stdout=out)
    page = staff_client("operator").get(f"/admin/operations/operation/{walk.pk}/change/").content.decode()

    assert out.getvalue().splitlines()[3:] == ["  pages: 12", "  complete: yes", "  of: odd ones: 1,600"]
    assert "<dt>of: odd ones</dt><dd>1,600</dd>" in page


def test_it_goes_on_with_the_page_at_which_its_worker_was_killed(walk: Operation) -> None:
    def work() -> None:
        kinds.unregister(Pages.name)
        kinds.register(Dying())
        operations_run_once()

    ended = child_run(work)
    walk.refresh_from_db()
    percent = progress_document(walk)["percent"]

    Operation.objects.update(lease_until="2020-01-01T00:00:00Z", next_step_at="2020-01-01T00:00:00Z")
    operation = operation_run(walk.pk, seconds=60)

    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert 0 < percent < 100
    assert (operation.state, operation.succeeded) == ("completed", 12)
    assert OperationItem.objects.filter(attempts=2).exists()


def test_it_leaves_other_operations_alone(walk: Operation) -> None:
    other = operation_create(kind="tests.pages", filter={}, reason="see", actor="user:ann")
    operation_start(operation_id=other.pk, actor="user:ann")

    operation_run(walk.pk, seconds=60)

    other.refresh_from_db()
    assert (other.state, other.begun) == ("running", 0)
    assert operations_run_once() > 0
