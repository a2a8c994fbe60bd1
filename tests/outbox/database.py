"""The address of this test's database, for processes of their own."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

from django.db import connection


def database_url() -> str:
    """Like DATABASE_URL, with the name of the test's own database."""
    return urlsplit(os.environ["DATABASE_URL"])._replace(path=f"/{connection.settings_dict['NAME']}").geturl()
