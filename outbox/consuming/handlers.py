"""Handlers: who does what with a message, by consumer group, topic and type.

    @handles("orders", "order.placed", group="shipping")
    def ship(message: Message) -> None: ...

Modules with handlers are listed in KAFKA_HANDLERS. A handler runs in a transaction, and its effect commits together
with the note that the message was handled: database work alone, exactly once whatever comes twice. It may be called
again after its effect was rolled back (because another message of its batch failed, or the database asked for it).
It ends with

* SUCCESS, when it returns;
* RETRY, when it raises: after 1, 2, 4 ... seconds, OUTBOX_MAX_RETRIES times, while later messages of the same
  aggregate wait and all others go on; then DLQ;
* DLQ, when it raises ``PermanentError``: the message goes to the dead letters. Its aggregate goes on, or, with
  ``dead_policy=DeadPolicy.BLOCK``, waits until a person sends the message again or gives it up.

``OutageError`` and ``ConfigurationError`` say that nothing can be handled now: nobody is blamed, and everything waits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from typing import Final, TypeVar

from django.db.models import TextChoices

from dbresilience.typed_settings import setting
from outbox.consuming.messages import Message
from outbox.errors import OutboxError
from outbox.policies import DeadPolicy

Function = Callable[[Message], None]
F = TypeVar("F", bound=Function)

ANY: Final = "*"


class Outcome(TextChoices):
    """What came of a message."""

    SUCCESS = "success"
    RETRY = "retry"
    DLQ = "dlq"
    IGNORED = "ignored"
    """Nothing was to be done: it came before, nobody handles its type, or a later one was handled."""
    WAITING = "waiting"
    """It waits behind one of its aggregate that is retried."""


class HandlerTaken(OutboxError, ValueError):
    """A group has one handler for each topic and type."""


@dataclass(frozen=True, slots=True)
class Handler:
    """A function, and what it is for.

    Attributes:
        function: takes the message; runs in a transaction.
        versions: schema versions that it understands.
        takes_late: whether it wants a message that comes after a later one of its aggregate was handled; otherwise
            such a message is ignored, so that no old state is the last one.
        dead_policy: what a dead message does to the later ones of its aggregate.
    """

    function: Function
    versions: frozenset[int]
    takes_late: bool
    dead_policy: DeadPolicy

    @property
    def blocks(self) -> bool:
        """Whether an aggregate waits behind its dead message."""
        return self.dead_policy is DeadPolicy.BLOCK


_handlers: Final[dict[tuple[str, str, str], Handler]] = {}


def handles(
    topic: str,
    *types: str,
    group: str,
    versions: Iterable[int] = (1,),
    takes_late: bool = False,
    dead_policy: DeadPolicy = DeadPolicy.SKIP,
) -> Callable[[F], F]:
    """Register a function for messages of a topic.

    Args:
        topic: without the prefix, as in ``orders``.
        types: of events, as in ``order.placed``; none stands for all.
        group: consumer group, as ``manage.py kafka_worker --group`` names it.
        versions: schema versions that it understands; messages of others are dead letters.
        takes_late: see ``Handler``.
        dead_policy: see ``Handler``; SKIP, as dead-letter topics usually mean it, unless each message builds upon the
            one before it.

    Raises:
        HandlerTaken: another function of that group handles one of these already.
    """

    def register(function: F) -> F:
        handler = Handler(function, frozenset(versions), takes_late, dead_policy)
        for type_ in types or (ANY,):
            known = _handlers.get((group, topic, type_))
            if known is not None and _name(known.function) != _name(function):
                raise HandlerTaken(f"{group}: {topic} {type_} is handled by {_name(known.function)}")
            _handlers[group, topic, type_] = handler
        return function

    return register


def unregister(*, group: str) -> None:
    """Take the handlers of a group away."""
    for key in [key for key in _handlers if key[0] == group]:
        del _handlers[key]


def handler_for(group: str, topic: str, type_: str) -> Handler | None:
    """Who handles that, or None."""
    return _handlers.get((group, topic, type_)) or _handlers.get((group, topic, ANY))


def handlers_load() -> None:
    """Import the modules that KAFKA_HANDLERS lists; each registers what it has.

    Raises:
        ImportError: one cannot be imported.
    """
    for path in setting("KAFKA_HANDLERS", []):
        import_module(path)


def groups() -> dict[str, frozenset[str]]:
    """Topics that are handled, by group."""
    found: dict[str, set[str]] = {}
    for group, topic, _ in _handlers:
        found.setdefault(group, set()).add(topic)
    return {group: frozenset(topics) for group, topics in sorted(found.items())}


def _name(function: Function) -> str:
    return f"{function.__module__}.{function.__qualname__}"
