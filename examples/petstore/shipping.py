"""Shipping: what another service of the shop would do. It hears of confirmed orders through Kafka, and ships them.

``manage.py kafka_worker --group shipping`` runs it. Each order is shipped once, whatever comes twice: the change of the
order, its event and the note that the message was handled commit together.
"""

from __future__ import annotations

from typing import Final

from examples.petstore.errors import UnknownOrder
from examples.petstore.services import ORDERS, order_ship
from outbox.consuming.handlers import handles
from outbox.consuming.messages import Message
from outbox.errors import PermanentError

GROUP: Final = "shipping"


# Late ones too: an order whose own later event was seen first is still to be shipped.
@handles(ORDERS, "confirmed", group=GROUP, takes_late=True)
def confirmed_ship(message: Message) -> None:
    """Ship the order; its event takes the same way to Kafka as all others."""
    try:
        order_ship(order_id=message.aggregate_id, caused_by=message.id)
    except UnknownOrder as exc:
        raise PermanentError("There is no such order.", code="unknown_order") from exc
