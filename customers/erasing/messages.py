"""The messages of integrations about a customer, under every id that its record there has had."""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

import orjson
from django.db import connection

from customers.sync.webhooks import ERASED_BODY

# The ids of all records of a customer in its integrations, as (integration, id). One that was created there anew left
# the row of the link its new id alone; the former ones are known from differences (by the indexes of their foreign
# keys), from the messages that told of our requests (syncrequest_by_state, webhook_by_cause) and from messages that
# carry our id (webhook_by_reference). What is linked to somebody else now is theirs: people copy metadata.
RECORDS_SQL: Final = """
WITH known AS (
  SELECT integration, remote_id FROM customers_syncstate WHERE customer_id = %(customer)s
  UNION
  SELECT integration, remote_id FROM customers_drift WHERE customer_id = %(customer)s
  UNION
  SELECT w.integration, w.remote_id FROM customers_syncstate s
    JOIN customers_syncrequest r ON r.state_id = s.id JOIN customers_webhook w ON w.caused_by_id = r.id
   WHERE s.customer_id = %(customer)s
  UNION
  SELECT integration, remote_id FROM customers_webhook
   WHERE (payload #>> '{data,object,metadata,zenskar_id}') = %(text)s
)
SELECT integration, remote_id FROM known k
 WHERE remote_id <> '' AND NOT EXISTS (
   SELECT 1 FROM customers_syncstate o
    WHERE o.integration = k.integration AND o.remote_id = k.remote_id AND o.customer_id <> %(customer)s)
"""
# By the index webhook_by_remote_id.
EMPTY_SQL: Final = """
UPDATE customers_webhook w SET payload = %(erased)s::jsonb
  FROM unnest(%(integrations)s::text[], %(records)s::text[]) AS k (integration, remote_id)
 WHERE w.integration = k.integration AND w.remote_id = k.remote_id
   AND w.processed_at IS NOT NULL AND w.payload <> %(erased)s::jsonb
"""


def webhooks_erase(*, customer_id: UUID) -> int:
    """Empty the messages about a customer that were worked on, in the transaction under way; how many."""
    with connection.cursor() as cursor:
        cursor.execute(RECORDS_SQL, {"customer": customer_id, "text": str(customer_id)})
        found = cursor.fetchall()
        values: dict[str, Any] = {
            "integrations": [row[0] for row in found],
            "records": [row[1] for row in found],
            "erased": orjson.dumps(ERASED_BODY).decode(),
        }
        cursor.execute(EMPTY_SQL, values)
        return int(cursor.rowcount)
