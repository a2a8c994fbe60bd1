"""Who acts when a command does."""

from __future__ import annotations

import getpass


def shell_actor() -> str:
    """The actor of a command, for the audit trail: ``shell:<user>``."""
    try:
        return f"shell:{getpass.getuser()}"
    except (KeyError, OSError):
        # A container may run under a number that has no name.
        return "shell"
