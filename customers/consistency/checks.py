"""What must hold between the catalogue and its sync states, each as one query that finds where it does not.

They look at our own tables alone, and at nothing that somebody is at work on. What the other side holds is compared by
``customers.reconciling``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from django.db import connection

from customers.integrations import Integration
from customers.models import Priority, SyncState
from customers.sync.pokes import Poke, integration_poke

_FIRST_UUID: Final = "00000000-0000-0000-0000-000000000000"
_AT_REST: Final = (
    "s.dirty_at IS NULL AND (s.lease_until IS NULL OR s.lease_until <= statement_timestamp()) AND s.saga_id IS NULL"
)

# By the primary key and the unique index of (integration, customer). A minute: the log carries the news meanwhile.
NO_STATE_SQL: Final = """
SELECT c.id::text FROM customers_customer c
 WHERE c.deleted_at IS NULL AND c.id > %(after)s::uuid AND c.created_at < statement_timestamp() - interval '1 minute'
   AND NOT EXISTS (SELECT 1 FROM customers_syncstate s
                    WHERE s.integration = %(integration)s AND s.customer_id = c.id)
 ORDER BY c.id LIMIT %(limit)s
"""
DELETED_SQL: Final = f"""
SELECT s.id::text FROM customers_syncstate s JOIN customers_customer c ON c.id = s.customer_id
 WHERE s.integration = %(integration)s AND c.deleted_at IS NOT NULL AND s.status NOT IN ('deleted', 'conflict')
   AND {_AT_REST} AND s.id > %(after)s::bigint ORDER BY s.id LIMIT %(limit)s
"""  # noqa: S608 - constants only
# By the partial index of requests in flight.
REQUEST_SQL: Final = f"""
SELECT s.id::text FROM customers_syncrequest r JOIN customers_syncstate s ON s.id = r.state_id
 WHERE r.resolved_at IS NULL AND s.integration = %(integration)s AND {_AT_REST}
   AND s.id > %(after)s::bigint ORDER BY s.id LIMIT %(limit)s
"""  # noqa: S608 - constants only
# By the index of states by status.
CONFLICT_SQL: Final = f"""
SELECT s.id::text FROM customers_syncstate s
 WHERE s.status = 'conflict' AND s.integration = %(integration)s AND {_AT_REST} AND s.id > %(after)s::bigint
   AND NOT EXISTS (SELECT 1 FROM customers_conflict k WHERE k.state_id = s.id AND k.status = 'open')
 ORDER BY s.id LIMIT %(limit)s
"""  # noqa: S608 - constants only
# By the partial index of open conflicts.
HIDDEN_SQL: Final = f"""
SELECT DISTINCT ON (s.id) s.id::text FROM customers_conflict k JOIN customers_syncstate s ON s.id = k.state_id
 WHERE k.status = 'open' AND k.kind <> 'same_email' AND s.status = 'in_sync' AND s.integration = %(integration)s
   AND {_AT_REST} AND s.id > %(after)s::bigint ORDER BY s.id LIMIT %(limit)s
"""  # noqa: S608 - constants only
FAILED_SQL: Final = """
SELECT s.id::text FROM customers_syncstate s
 WHERE s.status = 'failed' AND s.integration = %(integration)s AND s.id > %(after)s::bigint
 ORDER BY s.id LIMIT %(limit)s
"""
UNLINKED_SQL: Final = """
SELECT s.id::text FROM customers_syncstate s
 WHERE s.status = 'orphaned' AND s.integration = %(integration)s AND s.id > %(after)s::bigint
 ORDER BY s.id LIMIT %(limit)s
"""
# By the unique index of remote ids, whose first columns these are; deleted ones belong to whoever they belonged to.
ACCOUNT_SQL: Final = """
SELECT s.id::text FROM customers_syncstate s
 WHERE s.integration = %(integration)s AND (s.account, s.livemode) <> (%(account)s, %(livemode)s)
   AND s.status <> 'deleted' AND s.remote_id IS NOT NULL AND s.id > %(after)s::bigint ORDER BY s.id LIMIT %(limit)s
"""
# By the partial index of webhooks that wait.
WEBHOOK_SQL: Final = """
SELECT w.id::text FROM customers_webhook w
 WHERE w.processed_at IS NULL AND w.integration = %(integration)s AND w.id > %(after)s::bigint
   AND w.received_at < statement_timestamp() - interval '5 minutes' ORDER BY w.id LIMIT %(limit)s
"""
# By the partial index of proposals. What is safe by rule needs nobody, and what was accepted is at work.
PROPOSAL_SQL: Final = """
SELECT d.id::text FROM customers_drift d
 WHERE d.status = 'open' AND NOT d.safe AND d.integration = %(integration)s AND d.id > %(after)s::bigint
 ORDER BY d.id LIMIT %(limit)s
"""

Fix = Callable[[Integration, Sequence[str]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One rule.

    Attributes:
        name: stable word for programs.
        title: what is wrong where it does not hold, for people.
        sql: SELECT of the keys of what breaks it, in order, at most ``limit`` after the key ``after``.
        first: the key before all others.
        fix: mends what has these keys, in the transaction under way; None: a person does.
        advice: what the fix does, or who does it otherwise.
    """

    name: str
    title: str
    sql: str
    advice: str
    first: str = "0"
    fix: Fix | None = None

    def broken(self, integration: Integration, *, after: str, limit: int) -> list[str]:
        """The next keys of what breaks the rule."""
        values: dict[str, Any] = {
            "integration": integration.name,
            "account": integration.account,
            "livemode": integration.livemode,
            "after": after or self.first,
            "limit": limit,
        }
        with connection.cursor() as cursor:
            cursor.execute(self.sql, values)
            return [row[0] for row in cursor.fetchall()]


def _poke(integration: Integration, keys: Sequence[str]) -> None:
    integration_poke(integration, [Poke(UUID(key), "consistency", Priority.BULK) for key in keys])


def _look_again(integration: Integration, keys: Sequence[str]) -> None:
    ids = [int(key) for key in keys]
    # In one order, so that two who mark several rows queue.
    list(SyncState.objects.filter(pk__in=ids).select_for_update(no_key=True).order_by("customer_id", "pk"))
    SyncState.objects.filter(pk__in=ids).look_again(priority=Priority.BULK)


def _try_again(integration: Integration, keys: Sequence[str]) -> None:
    SyncState.objects.filter(pk__in=[int(key) for key in keys]).try_again()


_MARKED: Final = "It is marked to be looked at."
CHECKS: Final = (
    Check(
        name="customer_without_state",
        title="customers that the synchronisation does not know",
        sql=NO_STATE_SQL,
        first=_FIRST_UUID,
        fix=_poke,
        advice=_MARKED,
    ),
    Check(
        name="deletion_not_synchronised",
        title="deleted customers whose deletion nobody carries on",
        sql=DELETED_SQL,
        fix=_look_again,
        advice=_MARKED,
    ),
    Check(
        name="request_left_in_flight",
        title="requests in flight that nobody finishes",
        sql=REQUEST_SQL,
        fix=_look_again,
        advice="It is marked to be looked at; the request is finished first.",
    ),
    Check(
        name="conflict_without_question",
        title="states in conflict without an open conflict",
        sql=CONFLICT_SQL,
        fix=_look_again,
        advice=_MARKED,
    ),
    Check(
        name="conflict_not_shown",
        title="states in sync with an open conflict",
        sql=HIDDEN_SQL,
        fix=_look_again,
        advice=_MARKED,
    ),
    Check(
        name="failed",
        title="synchronisations that failed",
        sql=FAILED_SQL,
        fix=_try_again,
        advice="It is tried again after all that is more urgent.",
    ),
    Check(
        name="orphaned",
        title="records without a customer, and ids that the integration does not know",
        sql=UNLINKED_SQL,
        advice="Compare both sides: manage.py customers_orphans, or POST /customers/cleanup-orphaned.",
    ),
    Check(
        name="other_account",
        title="records of another account or mode than the key in use",
        sql=ACCOUNT_SQL,
        advice="Put the right key back, or see the runbook on both sides that differ.",
    ),
    Check(
        name="webhook_not_processed",
        title="webhooks that have waited for over five minutes",
        sql=WEBHOOK_SQL,
        advice="See whether workers or a relay run.",
    ),
    Check(
        name="proposal_open",
        title="differences that a person must decide about",
        sql=PROPOSAL_SQL,
        advice="manage.py drift list, the console, or GET /customers/drift.",
    ),
)


def check_named(name: str) -> Check | None:
    """The check of that name, or None."""
    return next((check for check in CHECKS if check.name == name), None)
