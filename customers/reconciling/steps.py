"""The steps of a comparison, each one an item of its operation that names what follows it.

``page``: a page there against the catalogue · ``unseen``: what is linked here and was on no page · ``unpushed``: what
was never created there · ``look``: one odd thing by itself · ``deletes``: whether deletions may be made · ``repair``:
one of them · ``close``: the end. A step that is repeated after its worker died finds what it did and does the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from django.db import connection
from django.db.models import Exists, OuterRef
from django.db.models.fields.json import KT
from django.db.models.functions import Now

from customers.models import Drift, ReconcileRun
from customers.reconciling.calling import BulkCalls
from customers.reconciling.conf import reconcile_settings
from customers.reconciling.drifts import drift_end, drift_gone, drift_record
from customers.reconciling.examining import record_examine, unpushed_examine
from customers.reconciling.findings import Finding
from customers.reconciling.items import look_item, put_off
from customers.reconciling.pages import Pages
from customers.reconciling.repairs import RepairRefused, drift_repair
from dbresilience.transactions import run_in_transaction
from operations.long_actions.kinds import Batch, Item, NewItem, Outcome, failed, skipped, succeeded
from operations.models import ItemState, OperationItem

CHUNK: Final = 5_000
SWEPT_AT_ONCE: Final = 20_000

# The next sync states in the order of their ids, and those of them that should have been on a page and were not. A row
# that is younger than the comparison, or at work, is none of them.
UNSEEN_SQL: Final = """
WITH chunk AS MATERIALIZED (
    SELECT id, integration, account, livemode, remote_id, status, created_at, dirty_at FROM customers_syncstate
     WHERE id > %(after)s ORDER BY id LIMIT %(limit)s)
SELECT (SELECT max(id) FROM chunk),
       (SELECT array_agg(remote_id ORDER BY id) FROM chunk
         WHERE integration = %(integration)s AND account = %(account)s AND livemode = %(livemode)s
           AND remote_id IS NOT NULL AND status <> 'deleted' AND created_at < %(until)s AND dirty_at IS NULL
           AND NOT EXISTS (SELECT 1 FROM customers_reconcileseen s
                            WHERE s.operation_id = %(operation)s AND s.remote_id = chunk.remote_id))
"""
# The next customers in the order of their ids, and those of them that have no record there and none on its way.
UNPUSHED_SQL: Final = """
WITH chunk AS MATERIALIZED (
    SELECT id, created_at, deleted_at FROM customers_customer WHERE id > %(after)s ORDER BY id LIMIT %(limit)s)
SELECT (SELECT id::text FROM chunk ORDER BY id DESC LIMIT 1),
       (SELECT array_agg(chunk.id::text ORDER BY chunk.id) FROM chunk
          LEFT JOIN customers_syncstate s ON s.customer_id = chunk.id AND s.integration = %(integration)s
         WHERE chunk.deleted_at IS NULL AND chunk.created_at < %(until)s
           AND (s.id IS NULL
                OR (s.remote_id IS NULL AND s.dirty_at IS NULL AND s.status NOT IN ('failed', 'conflict'))))
"""
SWEEP_SQL: Final = """
DELETE FROM customers_reconcileseen WHERE id IN (
  SELECT id FROM customers_reconcileseen WHERE operation_id = %(operation)s LIMIT %(limit)s)
"""

FIRST_UUID: Final = "00000000-0000-0000-0000-000000000000"


class Steps:
    """Carries out steps of one comparison.

    Args:
        batch: the steps, and the operation's frozen filter.
        call: makes calls to the integration.
        imports_only: nothing is looked for but records that are not in the catalogue.
    """

    def __init__(self, batch: Batch, call: BulkCalls, *, imports_only: bool) -> None:
        self._batch = batch
        self._call = call
        self._integration = call.integration
        self._operation_id = batch.operation_id
        self._dry_run: bool = batch.filter["dry_run"]
        self._until = datetime.fromisoformat(batch.filter["until"])
        self._only = set(batch.filter.get("only") or Drift.Kind.values)
        self._imports_only = imports_only
        self._pages = Pages(batch, call, only=self._only, imports_only=imports_only)

    def take(self, item: Item) -> Outcome:
        """Carry one step out.

        Raises:
            IntegrationError: a call failed, and nothing is lost when the step is repeated.
        """
        step: Callable[[Item], Outcome] = getattr(self, f"_{item.data['step']}")
        return step(item)

    def _page(self, item: Item) -> Outcome:
        if pages_failed(self._operation_id):
            return skipped(item, "given_up", "Another page could not be read.")
        return self._pages.take(item)

    def _unseen(self, item: Item) -> Outcome:
        if pages_failed(self._operation_id):
            return failed(item, "incomplete", "A page could not be read, so nobody knows what is missing there.")
        values = self._values(item) | {"operation": self._operation_id}
        last, ids = self._chunk(UNSEEN_SQL, values)
        then = [look_item(remote_id=remote_id) for remote_id in ids or ()]
        if last is None:
            return succeeded(item, then=[NewItem("unpushed:0", {"step": "unpushed", "after": FIRST_UUID})])
        return succeeded(item, then=[*then, NewItem(f"unseen:{last}", {"step": "unseen", "after": last})])

    def _unpushed(self, item: Item) -> Outcome:
        if item.data["after"] == FIRST_UUID and self._items("look:", ItemState.PENDING, ItemState.STARTED):
            # One of those records may turn out to be that of a customer who seems to have none.
            return succeeded(item, then=[put_off(item, failures=0)])
        last, ids = self._chunk(UNPUSHED_SQL, self._values(item))
        then = [look_item(customer_id=customer_id) for customer_id in ids or ()]
        if last is None:
            return succeeded(item, then=[NewItem("deletes:1", {"step": "deletes", "number": 1})])
        return succeeded(item, then=[*then, NewItem(f"unpushed:{last}", {"step": "unpushed", "after": last})])

    def _look(self, item: Item) -> Outcome:
        remote_id, customer_id = item.data.get("remote_id", ""), item.data.get("customer_id")
        if remote_id:
            finding = record_examine(self._integration, remote_id, call=self._call)
        else:
            finding = unpushed_examine(self._integration, UUID(customer_id))
        if finding is None:
            drift_gone(self._integration, remote_id=remote_id, customer_id=customer_id)
            return succeeded(item, "no difference")
        if finding.kind not in self._only and not self._keeps_one_from_being_made(finding):
            return skipped(item, "not_asked_for", finding.detail)
        return self._mended(item, finding)

    def _keeps_one_from_being_made(self, finding: Finding) -> bool:
        return finding.repair == Drift.Repair.LINK and Drift.Kind.MISSING_THERE in self._only

    def _mended(self, item: Item, finding: Finding) -> Outcome:
        drift = drift_record(self._integration, finding, operation_id=self._operation_id)
        if drift is None:
            return succeeded(item, "declined before, or looked at meanwhile")
        if self._dry_run or finding.destroys or not finding.safe or drift.status != Drift.Status.OPEN:
            return succeeded(item, f"found: {finding.kind}")
        try:
            outcome = drift_repair(self._integration, drift, call=self._call)
        except RepairRefused as exc:
            return skipped(item, "not_now", exc.reason)
        drift_end(drift, Drift.Status.REPAIRED, outcome)
        return succeeded(item, f"repaired: {finding.kind}")

    def _deletes(self, item: Item) -> Outcome:
        """With everything found it is known how much would be deleted: a few, or so much that it must be a mistake."""
        if self._items("look:", ItemState.PENDING, ItemState.STARTED):
            number = item.data["number"] + 1
            return succeeded(item, then=[NewItem(f"deletes:{number}", {"step": "deletes", "number": number})])
        found = Drift.objects.open().filter(operation_id=self._operation_id, safe=True, destroys=True)
        most = reconcile_settings().deletes_most
        ids = list(found.order_by("pk").values_list("pk", flat=True)[: most + 1])
        then: list[NewItem] = []
        if len(ids) > most:
            why = f"More than {most} would be deleted at once, which is more likely a mistake than the truth."
            found.update(safe=False, why_not=why)
        elif not self._dry_run:
            then = [NewItem(f"repair:{pk}", {"step": "repair", "drift": pk}) for pk in ids]
        return succeeded(item, then=[*then, NewItem("close:1", {"step": "close", "number": 1})])

    def _repair(self, item: Item) -> Outcome:
        drift = Drift.objects.filter(pk=item.data["drift"], status=Drift.Status.OPEN, safe=True).first()
        if drift is None:
            return skipped(item, "decided", "It was decided, or is not there any more.")
        finding = record_examine(self._integration, drift.remote_id, call=self._call)
        if finding is None or (finding.kind, finding.safe) != (drift.kind, True):
            return skipped(item, "changed", "It is not as it was found.")
        try:
            outcome = drift_repair(self._integration, drift, call=self._call)
        except RepairRefused as exc:
            return skipped(item, "not_now", exc.reason)
        drift_end(drift, Drift.Status.REPAIRED, outcome)
        return succeeded(item, f"repaired: {drift.kind}")

    def _close(self, item: Item) -> Outcome:
        number = item.data["number"] + 1
        again = NewItem(f"close:{number}", {"step": "close", "number": number})
        if self._items("repair:", ItemState.PENDING, ItemState.STARTED) or self._sweep() == SWEPT_AT_ONCE:
            return succeeded(item, then=[again])

        def work() -> None:
            run = ReconcileRun.objects.select_for_update().get(operation_id=self._operation_id)
            is_whole = not self._imports_only and self._only == set(Drift.Kind.values)
            if is_whole:
                old = Drift.objects.open().filter(
                    integration=run.integration, account=run.account, livemode=run.livemode, seen_at__lt=run.started_at
                )
                # What could not be looked at again is not known to be gone.
                failed = OperationItem.objects.filter(
                    operation=self._operation_id, state=ItemState.FAILED, key__startswith="look:"
                )
                unknown = failed.annotate(record=KT("data__remote_id")).filter(record=OuterRef("remote_id"))
                old.exclude(Exists(unknown)).update(
                    status=Drift.Status.GONE, ended_at=Now(), outcome="Not found any more."
                )
            run.complete, run.finished_at = is_whole and not pages_failed(self._operation_id), Now()
            run.save(update_fields=["complete", "finished_at"])

        run_in_transaction(work)
        return succeeded(item)

    def _sweep(self) -> int:
        with connection.cursor() as cursor:
            cursor.execute(SWEEP_SQL, {"operation": self._operation_id, "limit": SWEPT_AT_ONCE})
            return int(cursor.rowcount)

    def _items(self, prefix: str, *states: ItemState) -> bool:
        """Whether there are steps of a kind in one of these states."""
        rows = OperationItem.objects.filter(operation=self._operation_id, state__in=states, key__startswith=prefix)
        return rows.exists()

    def _values(self, item: Item) -> dict[str, Any]:
        return {
            "integration": self._integration.name,
            "account": self._integration.account,
            "livemode": self._integration.livemode,
            "until": self._until,
            "after": item.data["after"],
            "limit": CHUNK,
        }

    @staticmethod
    def _chunk(sql: str, values: dict[str, Any]) -> tuple[Any, Sequence[str] | None]:
        with connection.cursor() as cursor:
            cursor.execute(sql, values)
            last, ids = cursor.fetchone()
        return last, ids


def run_open(batch: Batch, call: BulkCalls) -> ReconcileRun:
    """The row that counts what this operation does."""
    integration = call.integration
    run, _ = ReconcileRun.objects.get_or_create(
        operation_id=batch.operation_id,
        defaults={"integration": integration.name, "account": integration.account, "livemode": integration.livemode},
    )
    return run


def pages_failed(operation_id: int) -> bool:
    """Whether a page could not be read, so that not all of the other side was."""
    rows = OperationItem.objects.filter(operation=operation_id, state=ItemState.FAILED, key__startswith="page:")
    return rows.exists()


def chain_ended(batch: Batch, outcomes: Sequence[Outcome]) -> bool:
    """Whether the last page of all windows was read in this batch. One worker holds an operation, so none can race."""
    pages = {item.id for item in batch.items if item.data["step"] == "page"}
    if not pages or any(one.key.startswith("page:") for outcome in outcomes for one in outcome.then):
        return False
    rest = OperationItem.objects.filter(
        operation=batch.operation_id, key__startswith="page:", state__in=[ItemState.PENDING, ItemState.STARTED]
    )
    return not rest.exclude(pk__in=pages).exists()
