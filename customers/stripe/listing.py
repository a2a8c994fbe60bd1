"""All customers of an account, a page of a hundred at a time, without the library's objects: a whole account is read
so, and building an object of each part of each customer would cost more than all the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

from customers.integrations import PermanentError, RecordPage
from customers.stripe import mapping

PAGE: Final = 100
_PATH: Final = "/v1/customers"

Read = Callable[[str, Mapping[str, Any]], dict[str, Any]]


def customers_page(
    read: Callable[[str, Mapping[str, Any]], dict[str, Any]], *, since: datetime | None, until: datetime, after: str
) -> RecordPage:
    """One page, newest first.

    A page begins after the last customer of the one before. If that one is unknown by now, it begins at the second in
    which it was created: some customers come twice then, and none is left out.
    """
    window: dict[str, int] = {"lt": int(until.timestamp())}
    if since is not None:
        window["gte"] = int(since.timestamp())
    params: dict[str, Any] = {"limit": PAGE, "created": window}
    last_id, _, second = after.partition(":")
    if last_id:
        params["starting_after"] = last_id
    try:
        listed = read(_PATH, params)
    except PermanentError as exc:
        if not last_id or exc.code != "resource_missing":
            raise
        window.pop("lt")
        listed = read(_PATH, {"limit": PAGE, "created": {**window, "lte": int(second)}})
    customers = listed["data"]
    records = tuple(mapping.record_of(customer) for customer in customers)
    last = customers[-1] if customers and listed.get("has_more") else None
    return RecordPage(records=records, after=f"{last['id']}:{last['created']}" if last else "")
