"""What the control API's actions take, so that a wrong argument is answered with one clear line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument: its types as JSON has them, in words, and whether it must be there."""

    types: tuple[type, ...]
    words: str
    needed: bool = False


_TEXT: Final = Argument((str,), "text")
_WHOLE: Final = Argument((int,), "a whole number")
_WHOLE_OR_NULL: Final = Argument((int, type(None)), "a whole number, or null")
_NUMBER: Final = Argument((int, float), "a number")
_TRUTH: Final = Argument((bool,), "true or false")
_NEEDED_TEXT: Final = Argument((str,), "text", needed=True)

# What is not named here takes Stripe's own parameters, and says itself what is wrong with them.
_ARGUMENTS: Final[Mapping[tuple[str, str], Mapping[str, Argument]]] = {
    ("POST", "customers/fill"): {"count": Argument((int,), "a whole number", needed=True), "days": _WHOLE},
    ("POST", "faults"): {
        "route": _TEXT,
        "effect": _TEXT,
        "phase": _TEXT,
        "status": _WHOLE,
        "seconds": _NUMBER,
        "times": _WHOLE_OR_NULL,
        "probability": _NUMBER,
        "skip": _WHOLE,
    },
    ("DELETE", "faults"): {"seed": _WHOLE_OR_NULL},
    ("POST", "clock"): {"advance": _NUMBER},
    ("POST", "limits"): {"per_second": _WHOLE_OR_NULL},
    ("POST", "search"): {"lag": Argument((int, float), "a number", needed=True)},
    ("POST", "webhooks/script"): {
        "effect": _NEEDED_TEXT,
        "type": _TEXT,
        "times": _WHOLE_OR_NULL,
        "seconds": _NUMBER,
        "copies": _WHOLE,
    },
    ("POST", "webhooks/release"): {"order": _TEXT},
    ("POST", "webhooks/resend"): {"event": _NEEDED_TEXT},
    ("POST", "webhooks/roll"): {"secret": _NEEDED_TEXT, "keep_old": _TRUTH, "endpoint_id": _TEXT},
}


def arguments_check(method: str, action: str, document: Mapping[str, Any]) -> None:
    """Raise ValueError, in one line for a person, unless ``document`` holds what the action takes."""
    takes = _ARGUMENTS.get((method, action))
    if takes is None:
        return
    known = f"It takes {', '.join(takes)}."
    for name in document:
        if name not in takes:
            raise ValueError(f'There is no argument "{name[:40]}". {known}')
    for name, argument in takes.items():
        if name not in document:
            if argument.needed:
                raise ValueError(f'The argument "{name}" is missing. {known}')
            continue
        value = document[name]
        # To Python a truth value is a number; to JSON it is not.
        if not isinstance(value, argument.types) or (isinstance(value, bool) and bool not in argument.types):
            raise ValueError(f'The argument "{name}" is {argument.words}.')
