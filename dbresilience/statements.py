"""Statements without their values, fit to be kept and shown."""

from __future__ import annotations

import re
from typing import Final

LONGEST: Final = 500

# One pass, first match wins; what is not closed runs to the end, since the server cuts long statements anywhere.
_TOKENS: Final = re.compile(
    r"""
    (?P<comment> --[^\n]* | /\*.*?(?:\*/|\Z) )
  | (?P<name> "(?:[^"]|"")*(?:"|\Z) )
  | (?P<literal>
        \b[eE]'(?:[^'\\]|\\.|'')*(?:'|\Z)
      | (?:\b[bBxXnN]|\b[uU]&)?'(?:[^']|'')*(?:'|\Z)
      | \$(?P<tag>[A-Za-z_]\w*)?\$.*?(?:\$(?P=tag)\$|\Z)
      | \$\$.*?(?:\$\$|\Z)
    )
  | (?P<parameter> \$\d+ | %s | %\(\w+\)s )
  | (?P<number> (?:(?<=[=(,<>+*/-]\s)[-+]|(?<=[=(,<>])[-+])? (?<![\w$"])
        (?:0[xX][0-9a-fA-F_]+|\d[\d_]*(?:\.\d*)?(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?)(?!\w) )
    """,
    re.VERBOSE | re.DOTALL,
)
_LIST: Final = re.compile(r"\(\s*(?:\?(?:::\w+(?:\[\])?)?)(?:\s*,\s*\?(?:::\w+(?:\[\])?)?)+\s*\)")
_ROWS: Final = re.compile(r"\(\?…\)(?:\s*,\s*\(\?…\))+")
_SPACE: Final = re.compile(r"\s+")

# The table that a statement changes or locks; else the first that it reads.
_IDENTIFIER: Final = r'((?:"[^"]+"|[A-Za-z_]\w*)(?:\.(?:"[^"]+"|[A-Za-z_]\w*))?)'
_WRITTEN: Final = re.compile(
    # "FOR UPDATE" and "FOR NO KEY UPDATE" change no table that follows them; blanks are single after normalising.
    r"\b(?:(?<!FOR )(?<!KEY )UPDATE(?: ONLY)?|INSERT INTO|DELETE FROM(?: ONLY)?|MERGE INTO"
    rf"|(?:LOCK|ALTER|TRUNCATE)(?: TABLE)?) {_IDENTIFIER}",
    re.IGNORECASE,
)
_LOCKED: Final = re.compile(r"\bFOR\s+(?:NO\s+KEY\s+UPDATE|UPDATE|SHARE|KEY\s+SHARE)\b", re.IGNORECASE)
_READ: Final = re.compile(rf"\bFROM\s+(?:ONLY\s+)?{_IDENTIFIER}", re.IGNORECASE)


def normalised(statement: str) -> str:
    """The statement with ``?`` for every value, without comments, on one line, 500 characters at most.

    Lists of values become ``(?…)``, so that the same statement with more of them stays the same statement.
    """
    text = _TOKENS.sub(_without_value, statement)
    text = _SPACE.sub(" ", text).strip()
    text = _ROWS.sub("(?…)", _LIST.sub("(?…)", text))
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def table_of(statement: str) -> str:
    """The table whose rows a normalised statement changes or locks, as written, or the empty string."""
    match = _WRITTEN.search(statement)
    if match is None and _LOCKED.search(statement):
        match = _READ.search(statement)
    return match[1].replace('"', "").removeprefix("public.") if match else ""


def _without_value(match: re.Match[str]) -> str:
    if match["comment"] is not None:
        return " "
    if match["name"] is not None:
        return match[0]
    return "?"
