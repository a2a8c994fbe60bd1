"""Finding the life of a thing: which things a term may mean, and what all sources tell of one."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from django.http import HttpRequest
from rest_framework.request import Request

from operations.errors import FieldError, ProblemError
from operations.life.sources import Entry, LifeSource, Subject, Term, Thread, merged, sources
from operations.models import ApiKey
from operations.scopes import Scope

LONGEST: Final = 300
_NEVER: Final = dt.datetime.max.replace(tzinfo=dt.UTC)


class NothingKnown(ProblemError):
    """Nothing here goes by that name: no event, no correlation id, nothing that events are about, no remote id."""

    status = 404
    code = "nothing_known"
    title = "Nothing known"


class NotAllowed(ProblemError):
    """The caller may not see any part of this."""

    status = 403
    code = "insufficient_scope"
    title = "Not allowed"


class InvalidTerm(ProblemError):
    """The parameter q: an id, of at most 300 characters."""

    code = "validation_failed"
    title = "Not valid"


@dataclass(frozen=True, slots=True)
class Section:
    """What one source told.

    Attributes:
        source: who tells it.
        is_hidden: the caller may not see it.
        entries: in the order of time.
        more: there is more than is shown.
    """

    source: LifeSource
    is_hidden: bool = False
    entries: Sequence[Entry] = ()
    more: bool = False


@dataclass(frozen=True, slots=True)
class Life:
    """The life of one thing.

    Attributes:
        term: what was asked for.
        subject: what that was taken for.
        others: what else it may mean.
        sections: what each source told.
        entries: of all sources in the order of time, each with its source; what is still to come stands last.
    """

    term: str
    subject: Subject
    others: Sequence[Subject]
    sections: Sequence[Section]
    entries: Sequence[tuple[LifeSource, Entry]]


def may_see(request: HttpRequest | Request, source: LifeSource) -> bool:
    """Whether the caller may see what this source tells; keys need the scope ``operations:read`` alone."""
    key = getattr(request, "auth", None)
    if isinstance(key, ApiKey):
        return Scope.OPERATIONS_READ in key.scopes
    return bool(request.user.has_perm(source.permission))


def life_find(request: HttpRequest | Request, term: str) -> Life:
    """The life of what the term means; only sources that the caller may see take part, in finding it as well.

    Raises:
        InvalidTerm: this can be nothing's name.
        NotAllowed: the caller may see no part of it.
        NothingKnown: no source knows it.
    """
    text = term.strip()
    if not text or len(text) > LONGEST or not text.isprintable():
        raise InvalidTerm(errors=[FieldError(parameter="q", code="invalid_value", detail=InvalidTerm.__doc__ or "")])
    seen = [source for source in sources() if may_see(request, source)]
    if not seen:
        raise NotAllowed
    known = merged([subject for source in seen for subject in source.recognise(Term(text))])
    if not known:
        raise NothingKnown
    # Said with its kind, it is what it says; a correlation id may look like that, too.
    subject = next((one for one in known if str(one.name) == text), known[0])
    thread = Thread(subject, request)
    sections = [_section(source, thread) if source in seen else Section(source, is_hidden=True) for source in sources()]
    entries = [(section.source, entry) for section in sections for entry in section.entries]
    entries.sort(key=lambda one: one[1].at or _NEVER)
    return Life(text, subject, [one for one in known if one is not subject], sections, entries)


def _section(source: LifeSource, thread: Thread) -> Section:
    told = source.tell(thread)
    return Section(source, entries=sorted(told.entries, key=lambda entry: entry.at or _NEVER), more=told.more)
