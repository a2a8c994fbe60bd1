"""What an integration says against a request may quote whom it was about; nobody needs it quoted.

The texts stand in lists of what went wrong, in answers, logs and alerts, which are read by people who may not see
customers, and outlive an erasure. What was sent stands in the request's own row, for those who may read it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from customers.integrations import IntegrationError
from outbox.masking import MASK

EMAIL: Final = re.compile(r"[^\s<>\"'(),;:]+@[^\s<>\"'(),;:]+")
# A shorter one would be found in words that say nothing of anybody.
_SHORTEST: Final = 2
# Of a long value the other side shows the beginning, or both ends.
_SHORTEST_PART: Final = 8


@contextmanager
def quoting_nothing(sent: Any = None) -> Iterator[None]:
    """Let an ``IntegrationError`` go on without e-mail addresses and without what was sent in its message.

    Args:
        sent: the body of the request: its texts, however deep.
    """
    try:
        yield
    except IntegrationError as exc:
        exc.message = text_unquoted(exc.message, texts_of(sent))
        exc.args = (exc.message,)
        raise


def text_unquoted(text: str, values: Iterable[str]) -> str:
    """A text without these values, as they are or cut, and without anything that looks like an e-mail address."""
    quoted = {part for value in values for part in _quoted(text, value)}
    for part in sorted(quoted, key=len, reverse=True):
        text = re.sub(rf"(?<!\w){re.escape(part)}(?!\w)" if len(part) < _SHORTEST_PART else re.escape(part), MASK, text)
    return EMAIL.sub(MASK, text)


def texts_of(sent: Any) -> Iterator[str]:
    """All texts in a document, without the names of its members."""
    if isinstance(sent, dict):
        sent = list(sent.values())
    if isinstance(sent, list):
        for one in sent:
            yield from texts_of(one)
    elif isinstance(sent, str):
        yield sent


def _quoted(text: str, value: str) -> Iterator[str]:
    """What of a value stands in the text: all of it, else its longest beginning and its longest end."""
    if value in text:
        if len(value) >= _SHORTEST:
            yield value
        return
    for cut in (_beginning, _end):
        length = _SHORTEST_PART
        while length < len(value) and cut(value, length) in text:
            length += 1
        if length > _SHORTEST_PART:
            yield cut(value, length - 1)


def _beginning(value: str, length: int) -> str:
    return value[:length]


def _end(value: str, length: int) -> str:
    return value[-length:]
