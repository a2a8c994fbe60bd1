"""A handler that writes a line for each message, and nothing else."""

from __future__ import annotations

from django.db import connection

from outbox.consuming.handlers import handles
from outbox.consuming.messages import Message

GROUP = "ledger"


@handles("orders", "order.placed", group=GROUP)
def line(message: Message) -> None:
    """One line; slow enough that a worker is killed amid work."""
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO effects (aggregate, sequence, event) SELECT %s, %s, %s FROM pg_sleep(0.001)",
            [message.aggregate_id, message.sequence, message.id],
        )
