"""What tests of our apps in projects of strangers share."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import psycopg


@contextmanager
def empty_database(prefix: str) -> Iterator[dict[str, str]]:
    """An empty database, as the environment that the pages for strangers read."""
    url = urlsplit(os.environ["DATABASE_URL"])
    name = f"{prefix}_{secrets.token_hex(4)}"
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
        yield {
            "PGDATABASE": name,
            "PGHOST": str(url.hostname),
            "PGPORT": str(url.port),
            "PGUSER": str(url.username),
            "PGPASSWORD": url.password or "",
        }
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
