from __future__ import annotations

from django.conf import settings


def pytest_configure() -> None:
    # Each test client builds the middleware anew; looking for a static file when it is asked for spares each of them
    # the reading of all of them.
    settings.WHITENOISE_AUTOREFRESH = True
