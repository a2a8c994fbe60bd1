"""The records of a file of customers: CSV or NDJSON, however broken, in bounded memory.

A record is either what a customer could be made of, or the reason why nothing can. Reading never stops at a bad one.
"""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, Final, Literal

from customers.values import ADDRESS_KEYS
from operations.errors import MalformedBody
from operations.json_bodies import parsed

Format = Literal["csv", "ndjson"]

LINE_LONGEST: Final = 256 * 1024
"""Bytes of a line; the largest valid customer has less than that, with every character escaped."""

RECORD_LINES_MOST: Final = 50
"""Lines of one CSV record; a quote that is never closed takes no more of the file with it."""

_BOM: Final = b"\xef\xbb\xbf"
_PLAIN_COLUMNS: Final = ("name", "email", "phone")


class UnusableFile(Exception):
    """The file as a whole cannot be imported."""


@dataclass(frozen=True, slots=True)
class Record:
    """One record of the file.

    Attributes:
        line: number of its first line, from 1.
        content: fields by name; None when it could not be read.
        reason: why it could not be read.
    """

    line: int
    content: Mapping[str, Any] | None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class _Line:
    number: int
    text: str
    reason: str = ""


def records(file: BinaryIO, format: Format) -> Iterator[Record]:
    """All records of ``file``, from its start; blank lines are none.

    Raises:
        UnusableFile: a CSV file without a header, or with columns that do not exist.
    """
    lines = _lines(file)
    return _csv_records(lines) if format == "csv" else _ndjson_records(lines)


def _lines(file: BinaryIO) -> Iterator[_Line]:
    number = 0
    while line := file.readline(LINE_LONGEST + 1):
        number += 1
        if number == 1:
            line = line.removeprefix(_BOM)
        if len(line) > LINE_LONGEST:
            while line and not line.endswith(b"\n"):
                line = file.readline(LINE_LONGEST)
            yield _Line(number, "", f"The line has more than {LINE_LONGEST} bytes.")
            continue
        try:
            yield _Line(number, line.decode("utf-8").rstrip("\r\n"))
        except UnicodeDecodeError:
            yield _Line(number, "", "The line is not UTF-8.")


def _ndjson_records(lines: Iterator[_Line]) -> Iterator[Record]:
    for line in lines:
        if line.reason:
            yield Record(line.number, None, line.reason)
        elif line.text.strip():
            try:
                content = parsed(line.text.encode())
            except MalformedBody as exc:
                yield Record(line.number, None, exc.detail.replace("The body", "The line"))
                continue
            if isinstance(content, dict):
                yield Record(line.number, content)
            else:
                yield Record(line.number, None, "The line is not a JSON object.")


def _csv_records(lines: Iterator[_Line]) -> Iterator[Record]:
    source = _Pushback(lines)
    columns: list[str] | None = None
    while (line := source.next()) is not None:
        if line.reason:
            if columns is None:
                raise UnusableFile(f"Line {line.number}, the header: {line.reason}")
            yield Record(line.number, None, line.reason)
            continue
        if not line.text.strip():
            continue
        cells = _cells(line, source)
        if columns is None:
            columns = _header(line, cells)
        elif isinstance(cells, str):
            yield Record(line.number, None, cells)
        elif len(cells) != len(columns):
            yield Record(line.number, None, f"The record has {len(cells)} cells, the header {len(columns)}.")
        else:
            yield Record(line.number, _customer(columns, cells))
    if columns is None:
        raise UnusableFile("The file has no header.")


class _Pushback:
    """The lines, with a way to give some back."""

    def __init__(self, lines: Iterator[_Line]) -> None:
        self._lines = lines
        self._returned: deque[_Line] = deque()

    def next(self) -> _Line | None:
        return self._returned.popleft() if self._returned else next(self._lines, None)

    def give_back(self, lines: list[_Line]) -> None:
        self._returned.extendleft(reversed(lines))


def _cells(first: _Line, source: _Pushback) -> list[str] | str:
    """The cells of the record that begins with ``first``, or the reason why there are none."""
    text = first.text
    taken: list[_Line] = []
    # A quoted cell may hold line breaks: lines are taken until the quotes are closed.
    while _is_open(text):
        line = source.next() if len(taken) < RECORD_LINES_MOST and len(text) <= LINE_LONGEST else None
        if line is None or line.reason:
            # What looked like the rest of this record may well be good records.
            source.give_back([*taken, *([line] if line else [])])
            return "A quote is opened and not closed."
        taken.append(line)
        text += "\n" + line.text
    try:
        return next(csv.reader([text], strict=True))
    except csv.Error as exc:
        source.give_back(taken)
        return f"The record is not CSV: {exc}."


def _is_open(text: str) -> bool:
    """Whether ``text`` ends within a quoted cell. Quotes inside an unquoted cell are letters like others."""
    position = 0
    while '"' in text[position:]:
        if text[position] != '"':
            comma = text.find(",", position)
            if comma < 0:
                return False
            position = comma + 1
            continue
        # A quoted cell: to its closing quote, past doubled ones.
        position += 1
        while True:
            quote = text.find('"', position)
            if quote < 0:
                return True
            if text[quote + 1 : quote + 2] != '"':
                position = quote + 1
                break
            position = quote + 2
        comma = text.find(",", position)
        if comma < 0:
            return False
        position = comma + 1
    return False


def _header(line: _Line, cells: list[str] | str) -> list[str]:
    if isinstance(cells, str):
        raise UnusableFile(f"Line {line.number}, the header: {cells}")
    columns = [cell.strip() for cell in cells]
    unknown = [column for column in columns if not _is_column(column)]
    if unknown:
        known = [*_PLAIN_COLUMNS, *(f"address.{key}" for key in ADDRESS_KEYS), "metadata.<key>"]
        raise UnusableFile(f"Unknown columns: {', '.join(unknown)[:200]}. There are: {', '.join(known)}.")
    if len(set(columns)) != len(columns):
        raise UnusableFile("A column occurs twice.")
    return columns


def _is_column(column: str) -> bool:
    kind, _, key = column.partition(".")
    return column in _PLAIN_COLUMNS or (kind == "address" and key in ADDRESS_KEYS) or (kind == "metadata" and key != "")


def _customer(columns: list[str], cells: list[str]) -> dict[str, Any]:
    """What the API would take; an empty cell says that there is nothing."""
    customer: dict[str, Any] = {}
    for column, cell in zip(columns, cells, strict=True):
        if not cell.strip():
            continue
        kind, _, key = column.partition(".")
        if key:
            customer.setdefault(kind, {})[key] = cell
        else:
            customer[column] = cell
    return customer
