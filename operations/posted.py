"""Single values of a form that the console's pages read without a form of Django's."""

from __future__ import annotations

from django.core.exceptions import BadRequest
from django.http import HttpRequest


def posted_text(request: HttpRequest, name: str, longest: int = 1_000) -> str:
    """A text that was posted, without the space around it and cut where it is too long; empty when there is none.

    Raises:
        BadRequest: it holds NUL, which no text of PostgreSQL can; no browser sends it by itself.
    """
    text = request.POST.get(name, "")
    if "\0" in text:
        raise BadRequest(f"The field {name} holds characters that cannot be stored.")
    return text.strip()[:longest]
