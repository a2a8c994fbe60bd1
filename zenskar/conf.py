"""Settings of the web process, with their defaults; each is a Django setting or an environment variable."""

from __future__ import annotations

from dataclasses import dataclass

from dbresilience.typed_settings import number, whole


@dataclass(frozen=True, slots=True)
class WebSettings:
    """What one web process does beside the requests that it works on.

    Attributes:
        queue: requests that may wait for a thread's place (``WEB_QUEUE``); 0: none waits.
        queue_seconds: seconds that one waits before it is sent away (``WEB_QUEUE_SECONDS``).
        spare_threads: threads that only probes take, and requests that are sent away (``WEB_SPARE_THREADS``).
    """

    queue: int
    queue_seconds: float
    spare_threads: int


def web_settings() -> WebSettings:
    """The settings in force.

    Raises:
        ImproperlyConfigured: a value is no number or out of its range; the message names the setting.
    """
    return WebSettings(
        queue=whole("WEB_QUEUE", 64, 0, 1000),
        queue_seconds=number("WEB_QUEUE_SECONDS", 1.0, 0.0, 60.0),
        spare_threads=whole("WEB_SPARE_THREADS", 8, 1, 1000),
    )
