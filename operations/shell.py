"""Who acts when a command does, and how it counts."""

from __future__ import annotations

import getpass


def shell_actor() -> str:
    """The actor of a command, for the audit trail: ``shell:<user>``."""
    try:
        return f"shell:{getpass.getuser()}"
    except (KeyError, OSError):
        # A container may run under a number that has no name.
        return "shell"


def counted(number: int, one: str, many: str = "") -> str:
    """``1 record``, ``2,000 records``; ``many`` is the plural where an s does not make it."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
