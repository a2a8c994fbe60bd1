"""Which page of the console shows what an event is about: apps say so of their own kinds of things."""

from __future__ import annotations

from typing import Final

from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from operations.life.links import life_link

_pages: Final[dict[str, str]] = {}


def aggregate_page_register(aggregate_type: str, page: str) -> None:
    """Have ids of this kind link to a page.

    Args:
        aggregate_type: as in events.
        page: name of the address, which takes the id as its one argument, as ``admin:customers_customer_change``.
    """
    _pages[aggregate_type] = page


def aggregate_link(aggregate_type: str, aggregate_id: str) -> SafeString | str:
    """The id, as a link to its page if some app shows such things, else to its life."""
    page = _pages.get(aggregate_type)
    if page is None:
        return life_link(aggregate_type, aggregate_id, aggregate_id)
    return format_html('<a href="{}">{}</a>', reverse(page, args=[aggregate_id]), aggregate_id)
