"""What was logged, as the lines that a machine would read."""

from __future__ import annotations

import json
import logging
import logging.config
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from zenskar.logs import logging_config

Lines = list[dict[str, Any]]


class Capture(logging.Handler):
    """Keeps what a handler would have written."""

    def __init__(self, formatter: logging.Formatter) -> None:
        super().__init__()
        self.setFormatter(formatter)
        self.text: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.text.append(self.format(record))

    def lines(self) -> Lines:
        return [json.loads(line) for line in self.text]


def formatter(form: Any) -> logging.Formatter:
    configuration = logging_config(form=form)
    made: logging.Formatter = logging.config.DictConfigurator(configuration).configure_formatter(
        dict(configuration["formatters"]["lines"])
    )
    return made


@contextmanager
def captured(level: int = logging.INFO) -> Iterator[Capture]:
    """All lines of this level and above that are logged in the block."""
    handler = Capture(formatter("json"))
    root = logging.getLogger()
    before = root.level
    root.setLevel(level)
    root.addHandler(handler)
    try:
        yield handler
    finally:
        root.removeHandler(handler)
        root.setLevel(before)
