"""Logging: JSON lines for machines, readable lines on a terminal; the correlation id in each, secrets in none."""

from __future__ import annotations

import hashlib
import re
import sys
import traceback
from collections.abc import Mapping
from typing import Any, Final, Literal

import structlog
from structlog.tracebacks import ExceptionDictTransformer
from structlog.typing import EventDict, Processor

Format = Literal["auto", "json", "console"]

MASK: Final = "[masked]"
FAULT_FRAMES: Final = 5
_OURS: Final = re.compile(r"(zenskar|customers|projections|outbox|operations|dbresilience)\b")
_SECRET_NAMES: Final = re.compile(
    r"(?i)^(authorization|cookie|set-cookie|x-api-key|.*(password|passwd|secret|token|api_?key|dsn|_url))$"
)
_SECRET_VALUES: Final = re.compile(
    r"(?:(?:sk|rk)_(?:test|live)_|whsec_|zk_[a-z0-9]{12}_)[A-Za-z0-9_]+|(?<=://)[^/\s:@]*:[^/\s@]+(?=@)"
)
# PostgreSQL's DETAIL quotes the values of rows.
_ROW_VALUES: Final = re.compile(r"(?m)^DETAIL:.*$")


def mask_secrets(_: Any, __: str, event: EventDict) -> EventDict:
    """Processor: masks values whose name or look says that they are secret, however deep they stand."""
    return {name: _masked(name, value) for name, value in event.items()}


def name_fault(_: Any, __: str, event: EventDict) -> EventDict:
    """Processor: names the fault that a line has the trace of, alike wherever and with whatever values it happens.

    Made of the exception's class and the functions of ours that it passed through, without line numbers: the same
    before and after a change elsewhere in the file.
    """
    given = event.get("exc_info")
    found = given if isinstance(given, BaseException) else given[1] if isinstance(given, tuple) else sys.exc_info()[1]
    if given and found is not None:
        event["fault"] = _fault_of(found)
    return event


# What every line goes through first, whoever logged it.
_BEFORE: Final[list[Processor]] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.ExtraAdder(),
    name_fault,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.stdlib.PositionalArgumentsFormatter(),
]


def structlog_configure() -> None:
    """Let structlog's loggers end in the handlers of ``logging``; once in a process, since they keep what they found.

    A logger that was used before goes on with the processors of then, where ``structlog.testing`` no longer sees it.
    """
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_BEFORE,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def logging_config(*, form: Format = "auto", level: str = "INFO") -> dict[str, Any]:
    """Django's ``LOGGING``.

    Args:
        form: ``auto`` is readable lines when standard error is a terminal, else JSON.
        level: of our own and of all other loggers that are not named below.
    """
    as_json = form == "json" or (form == "auto" and not sys.stderr.isatty())
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "lines": {
                "()": structlog.stdlib.ProcessorFormatter,
                "foreign_pre_chain": _BEFORE,
                "processors": [structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_rendering(as_json)],
            }
        },
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "lines"}},
        "root": {"handlers": ["stderr"], "level": level},
        "loggers": {
            "django": {"level": level, "handlers": [], "propagate": True},
            # Each request and each exception in it already has its line.
            "django.request": {"level": "CRITICAL"},
            "django.security.csrf": {"level": "CRITICAL"},
            "django.server": {"level": "WARNING", "handlers": [], "propagate": True},
            # Sends one line for each task and beat entry, several a second; django_structlog's replace them.
            "celery.app.trace": {"level": "WARNING"},
            "celery.worker.strategy": {"level": "WARNING"},
            "celery.beat": {"level": "WARNING"},
            "health_check": {"level": "CRITICAL"},
            # Tells each error with the message of the other side, which may quote an e-mail.
            "stripe": {"level": "WARNING"},
        },
    }


def _rendering(as_json: bool) -> list[Processor]:
    if as_json:
        # Without local variables: they hold keys, bodies and rows.
        frames = structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False, max_frames=30))
        return [frames, mask_secrets, structlog.processors.JSONRenderer(default=str)]
    plain = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)
    return [structlog.processors.format_exc_info, mask_secrets, plain]


def _fault_of(exc: BaseException) -> str:
    frames = [frame for frame, _ in traceback.walk_tb(exc.__traceback__)]
    ours = [frame for frame in frames if _OURS.match(frame.f_globals.get("__name__", ""))]
    places = [f"{frame.f_globals.get('__name__', '')}.{frame.f_code.co_qualname}" for frame in ours or frames]
    text = "|".join([f"{type(exc).__module__}.{type(exc).__qualname__}", *places[-FAULT_FRAMES:]])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _masked(name: str, value: Any) -> Any:
    if isinstance(value, str):
        if value and _SECRET_NAMES.match(name):
            return MASK
        return _ROW_VALUES.sub(f"DETAIL: {MASK}", _SECRET_VALUES.sub(MASK, value))
    if isinstance(value, Mapping):
        return {str(key): _masked(str(key), element) for key, element in value.items()}
    if isinstance(value, list | tuple):
        return [_masked(name, element) for element in value]
    return value
