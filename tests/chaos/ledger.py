"""The ledger of the storm's consumers: one line for each effect, whatever it repeats."""

from __future__ import annotations

from django.db import connection

from outbox.consuming.handlers import handles
from outbox.consuming.messages import Message

GROUP = "chaos-ledger"


@handles("chaos", "t", group=GROUP)
def line(message: Message) -> None:
    """The effect."""
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO chaos_ledger (mark, aggregate, sequence) VALUES (%s, %s, %s)",
            [message.payload["mark"], message.aggregate_id, message.sequence],
        )
