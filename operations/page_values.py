"""How values stand on the console's pages."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any, Final

from django.db.models import Model
from django.urls import reverse
from django.utils.formats import date_format
from django.utils.html import format_html
from django.utils.safestring import SafeString

from operations.overview import Tone

NOTHING: Final = "—"
"""What stands where there is no value."""


def badge(text: str, tone: Tone) -> SafeString:
    """A short word on a coloured ground, for the state of a row."""
    return format_html('<span class="badge badge-{}">{}</span>', tone, text)


def words(label: str) -> str:
    """A choice's label with the first letter alone as a capital, whatever Django made of its name."""
    return label[:1].upper() + label[1:].lower()


def number_of(count: int, one: str, many: str) -> str:
    """A number with the word that goes with it: 1 conflict, 2 conflicts."""
    return f"{count:,} {one if count == 1 else many}"


def moment(at: dt.datetime | None, otherwise: str = NOTHING) -> str:
    """A time as the console writes it everywhere."""
    return otherwise if at is None else date_format(at, "DATETIME_FORMAT")


def record_link(record: Model | None, text: str = "") -> SafeString | str:
    """A link to the page of a record, with its name as text unless another one is given."""
    if record is None:
        return NOTHING
    meta = record._meta
    address = reverse(f"admin:{meta.app_label}_{meta.model_name}_change", args=[record.pk])
    return format_html('<a href="{}">{}</a>', address, text or record)


def json_block(value: Any, *, most: int | None = None, whole: str = "") -> SafeString | str:
    """JSON made readable, as an escaped block for a page of the console; a dash where there is nothing in it.

    Args:
        value: what JSON can say.
        most: characters; of what is longer the beginning is shown. None shows all.
        whole: address of a page that shows all of it.
    """
    if value is None or value == {} or value == []:
        return NOTHING
    if isinstance(value, str) and value and "\n" not in value and (most is None or len(value) <= most):
        return value.encode(errors="backslashreplace").decode()
    # The standard library's writer: bodies come from elsewhere, and JSON's numbers may be larger than 64 bits.
    text = json.dumps(value, indent=2, sort_keys=True, default=str, ensure_ascii=False)
    # Half of a surrogate pair is no text that could be sent; it is shown as the escape that it came as.
    text = text.encode(errors="backslashreplace").decode()
    block = format_html('<pre class="json">{}</pre>', text[:most])
    if most is None or len(text) <= most:
        return block
    link = format_html(' <a href="{}">All of it</a>', whole) if whole else ""
    return format_html("<p>The first {} of {} characters.{}</p>{}", f"{most:,}", f"{len(text):,}", link, block)
