"""Sources of the life of things: how an app says what of its own happened, and the registry of them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, NamedTuple, TypeVar

from django.db.models import Model, QuerySet
from django.http import HttpRequest
from rest_framework.request import Request

from operations.overview import Tone

T = TypeVar("T")
M = TypeVar("M", bound=Model)

CORRELATION: Final = "correlation"
SHOWN: Final = 50
"""Rows of one kind that a source gives at most."""


class Name(NamedTuple):
    """What a thing is called: ``customer`` and its id, ``event`` and its number, ``correlation`` and its id …"""

    kind: str
    value: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.value}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A thing whose life can be told.

    Attributes:
        name: what it is.
        title: for people; nothing of a person's data.
        others: more names under which rows of its life are found, as the correlation id of an event.
    """

    name: Name
    title: str
    others: frozenset[Name] = frozenset()

    @property
    def names(self) -> frozenset[Name]:
        return self.others | {self.name}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One thing that happened, or that is yet to happen.

    Attributes:
        kind: stable word for programs, as ``event`` or ``webhook``.
        id: its number or name within its kind.
        what: for people, in a few words.
        at: when it began; None if it has not.
        ended_at: when it was over.
        seconds: how long it took, if that is known better than by its ends.
        state: in a word; empty if it has none.
        tone: whether that is good or bad.
        attempts: how often it was tried, where that can be more than once.
        text: a line more; nothing secret.
        url: its page in the console.
        about: names whose lives it belongs to as well.
        data: what it carried, already masked for whoever asks.
    """

    kind: str
    id: str
    what: str
    at: dt.datetime | None
    ended_at: dt.datetime | None = None
    seconds: float | None = None
    state: str = ""
    tone: Tone = "plain"
    attempts: int | None = None
    text: str = ""
    url: str = ""
    about: Sequence[Name] = ()
    data: Any = None


@dataclass(frozen=True, slots=True)
class Told:
    """What a source has to tell: entries, and whether there are more than it gives."""

    entries: Sequence[Entry]
    more: bool = False


@dataclass(slots=True)
class Thread:
    """What is asked for, and what sources found out about it on the way.

    Attributes:
        subject: whose life it is.
        request: who asks.
        parts: things that sources found to belong to it, as deliveries of an event, for sources that come later.
    """

    subject: Subject
    request: HttpRequest | Request
    parts: set[Name] = field(default_factory=set)
    _found: dict[str, Any] = field(default_factory=dict)

    def named(self, kind: str) -> list[str]:
        """The values of all names of this kind that the subject has."""
        return sorted(name.value for name in self.subject.names if name.kind == kind)

    def once(self, key: str, function: Callable[[], T]) -> T:
        """What ``function`` gives, asked once for all sources: one that builds on another reads its rows no second
        time."""
        if key not in self._found:
            self._found[key] = function()
        found: T = self._found[key]
        return found


def first_of(rows: QuerySet[M], *order: str, limit: int = SHOWN) -> tuple[list[M], bool]:
    """The first rows in the order of an index, and whether there are more.

    In that order and no other: for the newest ones by id the planner may walk the whole table backwards.
    """
    found = list(rows.order_by(*order)[: limit + 1])
    return found[:limit], len(found) > limit


class LifeSource:
    """What an app knows of the life of things. Apps subclass it and register an instance in their ``ready()``.

    Every query is bounded and served by an index, and their number does not grow with what is found.

    Attributes:
        name: as ``log``.
        title: for people.
        permission: Django permission to see its entries; programs need the scope ``operations:read``.
        order: smaller is asked first, and comes first among entries of one moment.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    permission: ClassVar[str]
    order: ClassVar[int] = 100

    def recognise(self, term: Term) -> Sequence[Subject]:
        """Things that the term may mean."""
        return ()

    def tell(self, thread: Thread) -> Told:
        """What happened to the subject."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Term:
    """What somebody typed: a bare id, or the kind of thing, a colon and its id."""

    text: str

    def of(self, *kinds: str) -> str | None:
        """The id, if the term says one of these kinds."""
        kind, colon, value = self.text.partition(":")
        return value if colon and kind in kinds else None


_sources: Final[dict[str, LifeSource]] = {}


def register(source: LifeSource) -> None:
    """Add a source; the same name again replaces it."""
    _sources[source.name] = source


def unregister(name: str) -> None:
    """Take a source away."""
    _sources.pop(name, None)


def sources() -> list[LifeSource]:
    """All sources, in their order."""
    return sorted(_sources.values(), key=lambda source: (source.order, source.name))


def merged(subjects: Sequence[Subject]) -> list[Subject]:
    """Each thing once, with all names that sources know it by; in the order in which they were found."""
    found: dict[Name, Subject] = {}
    for one in subjects:
        known = found.get(one.name)
        found[one.name] = (
            one if known is None else Subject(name=one.name, title=known.title, others=known.others | one.others)
        )
    return list(found.values())
