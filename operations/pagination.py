"""A paginator for tables of millions of rows, where counting them costs more than the page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from django.core.paginator import Paginator
from django.db import connections
from django.db.models import QuerySet
from django.utils.functional import cached_property

if TYPE_CHECKING:
    _Paginator = Paginator[Any]
else:
    _Paginator = Paginator

COUNTED_AT_MOST: Final = 2_000

# Serves CheapPaginator.count: the planner's row estimate of a table, or of all partitions of a partitioned one. What
# was never analysed has -1.
ESTIMATE_SQL: Final = """
SELECT coalesce(sum(greatest(c.reltuples, 0)), 0)::bigint FROM pg_class c
 WHERE c.relkind = 'r' AND c.oid IN (
    SELECT %(table)s::regclass::oid UNION SELECT relid::oid FROM pg_partition_tree(%(table)s::regclass))
"""


class CheapPaginator(_Paginator):
    """Counts up to 2,000 rows; beyond that an unfiltered list shows the planner's estimate, a filtered one stops.

    As many rows can be paged through: a page far behind reads all rows before it, for seconds, and nobody finds
    anything that way.
    """

    @property
    def num_pages(self) -> int:
        return min(super().num_pages, COUNTED_AT_MOST // self.per_page)

    @property
    def is_cut(self) -> bool:
        """Whether there are more rows than can be paged through."""
        return self.count > COUNTED_AT_MOST

    @property
    def counted_at_most(self) -> str:
        return f"{COUNTED_AT_MOST:,}"

    @property
    def count_text(self) -> str:
        """The number of rows, as far as it is known."""
        if not self.is_cut:
            return f"{self.count:,}"
        return f"over {COUNTED_AT_MOST:,}" if self.count == COUNTED_AT_MOST + 1 else f"about {self.count:,}"

    @cached_property
    def count(self) -> int:
        rows = self.object_list
        if not isinstance(rows, QuerySet):
            return len(rows)
        bounded = rows.order_by()[: COUNTED_AT_MOST + 1].count()
        if bounded <= COUNTED_AT_MOST or rows.query.where:
            return bounded
        return max(bounded, self._estimate(rows))

    def _estimate(self, rows: QuerySet[Any]) -> int:
        with connections[rows.db].cursor() as cursor:
            cursor.execute(ESTIMATE_SQL, {"table": f'"{rows.model._meta.db_table}"'})
            return int(cursor.fetchone()[0])
