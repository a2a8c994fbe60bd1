from __future__ import annotations

import pytest
from django.db import connection


@pytest.mark.django_db
def test_it_talks_to_a_postgresql_of_its_own() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('server_version_num')::int")
        (version,) = cursor.fetchone()

    assert version >= 150000
