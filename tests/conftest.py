from __future__ import annotations

import pytest
from django.conf import settings
from django.db import connection
from pytest_django.plugin import DjangoDbBlocker


def pytest_configure() -> None:
    # Each test client builds the middleware anew; looking for a static file when it is asked for spares each of them
    # the reading of all of them.
    settings.WHITENOISE_AUTOREFRESH = True


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> None:
    """A log that is not new: no test may hold for true that its first event has the first id or position."""
    with django_db_blocker.unblock(), connection.cursor() as cursor:
        cursor.execute("SELECT setval('outbox_log_position_seq', 7000000), setval('outbox_event_id_seq', 3000000)")
