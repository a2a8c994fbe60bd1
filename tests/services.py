"""A pytest plugin that gives each run a PostgreSQL, a Redis and a Kafka of its own, before Django reads its settings.

Loaded with ``-p tests.services`` (see pyproject.toml). Workers of pytest-xdist inherit the services of the process
that started them. Nothing here ever touches what ``make run`` started.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from zenskar.sandbox.postgres import Postgres, free_port

_running: list[Postgres] = []
_folder: Path | None = None


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests() -> None:
    if os.environ.get("ZENSKAR_TEST_SERVICES"):
        return
    global _folder
    _folder = Path(tempfile.mkdtemp(prefix="zenskar-test-"))
    _folder.chmod(0o755)
    postgres = Postgres(data=_folder / "postgres", port=free_port(), durable=False)
    atexit.register(_stop)
    _running.append(postgres)
    postgres.start()

    os.environ.update(
        ZENSKAR_TEST_SERVICES="1",
        SECRET_KEY="tests-only",
        ALLOWED_HOSTS="*",
        DATABASE_URL=postgres.url,
    )


def _stop() -> None:
    while _running:
        _running.pop().stop()
    if _folder is not None:
        shutil.rmtree(_folder, ignore_errors=True)
