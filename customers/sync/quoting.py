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

# Begun nowhere but where a word begins: begun at each of its characters, a long word without "@" would take the square
# of its length.
EMAIL: Final = re.compile(r"(?<![^\s<>\"'(),;:])[^\s<>\"'(),;:]+@[^\s<>\"'(),;:]+")
# A proxy in between may answer with whole pages, and the first 2,000 characters are kept.
_READ: Final = 16_000
# What the cut left of a value at the very end is no longer than this, and not known for what it is.
_RAGGED: Final = 512
# A shorter one would be found in words that say nothing of anybody; in any case of letters, "IT" and "No" would.
_SHORTEST: Final = 2
_SHORTEST_IN_ANY_CASE: Final = 4
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
        # What it was made from has the same message, and a traceback in a log would print that too.
        raise exc from None


def text_unquoted(text: str, values: Iterable[str]) -> str:
    """A text without these values, as they are or cut, and without anything that looks like an e-mail address.

    Values of four characters and more are found in any case. Of a text that is very long the beginning is left.
    """
    whole, text = len(text), text[:_READ]
    quoted = {part for value in values for part in _quoted_in_any_case(text, value)}
    for part in sorted(quoted, key=len, reverse=True):
        pattern = rf"(?<!\w){re.escape(part)}(?!\w)" if len(part) < _SHORTEST_PART else re.escape(part)
        flags = re.IGNORECASE if len(part) >= _SHORTEST_IN_ANY_CASE else re.NOFLAG
        text = re.sub(pattern, MASK, text, flags=flags)
    text = EMAIL.sub(MASK, text)
    return text if whole <= _READ else text[:-_RAGGED] or MASK


def texts_of(sent: Any) -> Iterator[str]:
    """All texts in a document, without the names of its members."""
    if isinstance(sent, dict):
        sent = list(sent.values())
    if isinstance(sent, list):
        for one in sent:
            yield from texts_of(one)
    elif isinstance(sent, str):
        yield sent


def _quoted_in_any_case(text: str, value: str) -> Iterator[str]:
    yield from _quoted(text, value)
    if len(value) >= _SHORTEST_IN_ANY_CASE:
        yield from _quoted(text.lower(), value.lower())


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
