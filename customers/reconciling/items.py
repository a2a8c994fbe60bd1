"""The items of a comparison: what they are called, and the same one once more."""

from __future__ import annotations

import hashlib
from typing import Any

from operations.long_actions.kinds import Item, NewItem


def look_item(*, remote_id: str = "", customer_id: str = "") -> NewItem:
    """The step that looks at one record, or at one customer that has none."""
    name = remote_id or customer_id
    if len(name) > 200:
        name = hashlib.sha256(name.encode()).hexdigest()
    data = {"step": "look", **({"remote_id": remote_id} if remote_id else {"customer_id": customer_id})}
    return NewItem(f"look:{name}", data)


def put_off(item: Item, *, failures: int) -> NewItem:
    """The same step once more, later.

    Args:
        failures: how often it was put off for a failure, and not only for want of a token.
    """
    base, tries = item.key.partition("~")[0], int(item.data.get("tries", 0)) + 1
    return NewItem(f"{base}~{tries}", {**item.data, "tries": tries, "failures": failures})


def plain_data(data: dict[str, Any]) -> dict[str, Any]:
    """What an item says, without how often it was put off."""
    return {name: value for name, value in data.items() if name not in ("tries", "failures")}
