"""Reading the other side's list, a window of the records' age at a time, some windows at once."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

import orjson
from django.db import connection
from django.db.models import F

from customers.integrations import IntegrationError, RecordPage, RemoteRecord
from customers.models import Drift, ReconcileRun
from customers.reconciling.calling import BulkCalls
from customers.reconciling.comparing import page_compare
from customers.reconciling.drifts import missing_record
from customers.reconciling.importing import Imported, records_import
from customers.reconciling.items import look_item, plain_data
from dbresilience.transactions import run_in_transaction
from operations.long_actions.kinds import Batch, Item, NewItem, Outcome, succeeded
from operations.shell import counted

PAGES_MOST: Final = 25
PAGES_SECONDS: Final = 1.0
READERS: Final = 8
# A window that has no beginning is halved as if it began so long ago; one that is shorter is not halved.
_UNKNOWN: Final = timedelta(days=3_650)
_SHORTEST: Final = timedelta(seconds=10)

SEEN_SQL: Final = """
INSERT INTO customers_reconcileseen (operation_id, remote_id)
SELECT %(operation)s, remote_id FROM jsonb_array_elements_text(%(ids)s::jsonb) AS given (remote_id) ORDER BY remote_id
ON CONFLICT DO NOTHING
"""


class Pages:
    """Carries out the steps that read pages.

    Args:
        batch: the steps, and the operation's frozen filter.
        call: makes calls to the integration.
        only: kinds of differences that are looked for.
        imports_only: nothing is looked for but records that are not in the catalogue.
    """

    def __init__(self, batch: Batch, call: BulkCalls, *, only: set[str], imports_only: bool) -> None:
        self._batch = batch
        self._call = call
        self._integration = call.integration
        self._operation_id = batch.operation_id
        self._dry_run: bool = batch.filter["dry_run"]
        self._only = only
        self._imports_only = imports_only

    def take(self, item: Item) -> Outcome:
        """Read some pages and settle them; the rest of the window, and what is odd, are steps that follow.

        Raises:
            IntegrationError: not even the first page could be read.
        """
        after, then, count = item.data["after"], [], 0
        oldest: datetime | None = None
        same: list[RemoteRecord] = []
        ends = time.monotonic() + PAGES_SECONDS
        since = datetime.fromisoformat(item.data["since"]) if item.data["since"] else None
        until = datetime.fromisoformat(item.data["until"])
        while True:
            try:
                page = self._read(since, until, after)
            except IntegrationError:
                if not count:
                    raise
                break
            then += [look_item(remote_id=remote_id) for remote_id in self._compared(page, same)]
            after, count = page.after, count + 1
            oldest = page.records[-1].created_at if page.records else oldest
            if not after or count >= PAGES_MOST or time.monotonic() > ends:
                break
        if same:
            run_in_transaction(lambda: self._settle(same, ()))
        if after:
            then += self._following(item, after, oldest)
        return succeeded(item, counted(count, "page"), then=then)

    def _following(self, item: Item, after: str, oldest: datetime | None) -> Sequence[NewItem]:
        """The rest of a window; as two when there are fewer readers than may be, for each waits for its answers."""
        number, window = item.data["number"] + 1, item.data["window"]
        rest = {**plain_data(item.data), "number": number, "after": after}
        since = item.data["since"]
        begins = datetime.fromisoformat(since) if since else oldest and oldest - _UNKNOWN
        if len(self._batch.items) < READERS and oldest and begins and oldest - begins > _SHORTEST:
            # On whole seconds, for so the other side compares them.
            middle = (begins + (oldest - begins) / 2).replace(microsecond=0).isoformat()
            older = {**rest, "since": since, "until": middle, "after": "", "number": 0, "window": f"{window}.{number}"}
            newer = {**rest, "since": middle}
            return [
                NewItem(f"page:{window}:{number}", newer),
                NewItem(f"page:{window}.{number}:0", older),
            ]
        return [NewItem(f"page:{window}:{number}", rest)]

    def _read(self, since: datetime | None, until: datetime, after: str) -> RecordPage:
        found: RecordPage = self._call(lambda: self._integration.page(since=since, until=until, after=after))
        return found

    def _compared(self, page: RecordPage, same: list[RemoteRecord]) -> Sequence[str]:
        """Settle one page, or leave it in ``same`` to be settled with others; ids of what must be looked at singly."""
        compared = page_compare(self._integration, page.records)
        unknown = compared.unknown if Drift.Kind.MISSING_HERE in self._only else []
        if not unknown:
            same += page.records
            return [] if self._imports_only else compared.odd
        done = run_in_transaction(lambda: self._settle(page.records, unknown))
        return [*done.unlinked, *([] if self._imports_only else compared.odd)]

    def _settle(self, records: Sequence[RemoteRecord], unknown: Sequence[RemoteRecord]) -> Imported:
        done = Imported()
        new = self._seen(records)
        missing = 0
        if unknown and self._dry_run:
            # Counted once, however often a page comes: only those that were not seen before are new.
            missing = len([record for record in unknown if record.remote_id in new])
            if not self._imports_only:
                missing_record(self._integration, unknown, operation_id=self._operation_id)
        elif unknown:
            done = records_import(self._integration, unknown)
            missing = len(done.customers) + len(done.unlinked) + len(done.singly)
        ReconcileRun.objects.filter(operation_id=self._operation_id).update(
            compared=F("compared") + len(new),
            missing=F("missing") + missing,
            imported=F("imported") + len(done.customers),
        )
        return done

    def _seen(self, records: Sequence[RemoteRecord]) -> set[str]:
        # As JSON: to quote hundreds for an array takes as long as to find them.
        ids = orjson.dumps([record.remote_id for record in records]).decode()
        with connection.cursor() as cursor:
            cursor.execute(SEEN_SQL + " RETURNING remote_id", {"operation": self._operation_id, "ids": ids})
            return {row[0] for row in cursor.fetchall()}
