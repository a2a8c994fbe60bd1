"""Sources of troubles: how an app says what of its own needs a person, and the registry of them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

from operations.scopes import Scope

COUNTED_AT_MOST: Final = 10_000
RETRIED_AT_ONCE: Final = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """One thing that needs a person.

    Attributes:
        id: its name within its source.
        group: fingerprint of what went wrong; the same for troubles of the same kind.
        state: in the words of its source, as ``dead`` or ``failed``.
        about: what it is about, for people, as ``customer 0190…``.
        code: stable word for programs.
        message: what went wrong; nothing secret.
        since: when it began.
        url: its page in the console; empty if it has none.
    """

    id: str
    group: str
    state: str
    about: str
    code: str
    message: str
    since: dt.datetime
    url: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TroubleGroup:
    """Troubles of the same kind.

    Attributes:
        fingerprint: of what went wrong.
        title: the kind, in a few words.
        count: how many; ``COUNTED_AT_MOST`` stands for as many or more.
        first_seen: when the oldest one began.
        last_seen: when the newest one began, or one of them last failed.
        code: of a sample.
        message: of a sample.
        sample_id: which trouble the sample is.
        hours: how many began in each of the last 24 hours, the oldest hour first; empty if that is not known.
    """

    fingerprint: str
    title: str
    count: int
    first_seen: dt.datetime
    last_seen: dt.datetime
    code: str
    message: str
    sample_id: str
    hours: Sequence[int] = field(default_factory=tuple)


class TroubleSource:
    """What of an app needs a person. Apps subclass it and give an instance to ``register`` in their ``ready()``.

    Every query is bounded: lists go by keyset, and counts stop at ``COUNTED_AT_MOST``.

    Attributes:
        name: as ``deliveries``; in addresses, metrics and commands.
        title: for people.
        view_permission: Django permission to see its troubles.
        retry_permission: Django permission to have them tried again.
        scope: the same as the latter for a program's API key.
        decided_on_page: a person decides on the page of each trouble; trying again alone changes nothing, and the
            console does not offer it.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    view_permission: ClassVar[str]
    retry_permission: ClassVar[str]
    scope: ClassVar[Scope] = Scope.OPERATIONS_WRITE
    decided_on_page: ClassVar[bool] = False

    def counts(self) -> Mapping[str, int]:
        """How many there are, by state; states with none are named too."""
        raise NotImplementedError

    def groups(self, *, fingerprint: str | None = None) -> Sequence[TroubleGroup]:
        """The kinds with the most troubles, at most 100, or the one of that fingerprint."""
        raise NotImplementedError

    def troubles(
        self, *, fingerprint: str | None = None, ids: Sequence[str] | None = None, after: str = "", limit: int = 50
    ) -> Sequence[Trouble]:
        """Troubles in the order of a key, newest first, the next ``limit`` after the trouble with the id ``after``.

        Args:
            fingerprint: only of this kind.
            ids: only these; ids that name nothing are left out.
        """
        raise NotImplementedError

    def retry(self, *, ids: Sequence[str], actor: str, reason: str) -> Sequence[str]:
        """Have troubles tried again, with an audit entry; those that will be. At most ``RETRIED_AT_ONCE``."""
        raise NotImplementedError

    def operation_for(self, fingerprint: str) -> tuple[str, dict[str, Any]] | None:
        """Kind and filter of the operation that tries all of a group again; None if there is no such kind."""
        return None

    def list_url(self, fingerprint: str) -> str:
        """The console's list of a group, where more can be done than trying again; empty if there is none."""
        return ""


_sources: Final[dict[str, TroubleSource]] = {}


def register(source: TroubleSource) -> None:
    """Add a source; the same name again replaces it."""
    _sources[source.name] = source


def unregister(name: str) -> None:
    """Take a source away."""
    _sources.pop(name, None)


def sources() -> list[TroubleSource]:
    """All sources, by name."""
    return [_sources[name] for name in sorted(_sources)]


def source_named(name: str) -> TroubleSource | None:
    """The source of that name, or None."""
    return _sources.get(name)
