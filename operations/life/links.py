"""Links to the life of a thing, for every page of the console that shows one."""

from __future__ import annotations

from urllib.parse import urlencode

from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from operations.life.sources import Name


def life_url(name: Name | str) -> str:
    """The address of a thing's life in the console."""
    return f"{reverse('console-life')}?{urlencode({'q': str(name)})}"


def life_link(kind: str, value: object, text: str = "Its life") -> SafeString | str:
    """A link to the life of a thing; nothing where the thing has no name."""
    if value in (None, ""):
        return ""
    return format_html('<a href="{}">{}</a>', life_url(Name(kind, str(value))), text)
