"""``dbresilience/README.md``, followed as it is written, in a project that has no other app of ours."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.projects import empty_database

pytestmark = [pytest.mark.feature("B7", "B8", "F2"), pytest.mark.timeout(240)]

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "dbresilience" / "README.md").read_text()
# Processes take long to start, so what the reader does in several is done in one.
MIGRATED = """
import django
from django.core.management import call_command

django.setup()
call_command("makemigrations", "orders", verbosity=0)
call_command("migrate", verbosity=0)
"""
HEALTHY = """
call_command("check", databases=["default"], fail_level="WARNING")
call_command("db_health")
"""
AWAY = {"PGHOST": "127.0.0.1", "PGPORT": "1"}


@pytest.fixture
def database() -> Iterator[dict[str, str]]:
    with empty_database("shop") as environment:
        yield environment


def written(after: str) -> str:
    """The first block of Python after these words."""
    return re.search(rf"{re.escape(after)}.*?```python\n(.*?)```", TEXT, re.DOTALL).group(1)  # type: ignore[union-attr]


def test_it_works_as_it_is_written(tmp_path: Path, database: dict[str, str]) -> None:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **database}

    def run(*arguments: str, text: str = "", status: int = 0, **more: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=tmp_path,
            env=environment | more,
            input=text,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout

    settings = tmp_path / "shop" / "settings.py"
    run("-m", "django", "startproject", "shop", ".")
    settings.write_text(settings.read_text() + written("`shop/settings.py`") + written("Celery's children"))
    (tmp_path / "orders").mkdir()
    (tmp_path / "orders" / "__init__.py").touch()
    (tmp_path / "orders" / "models.py").write_text(written("`orders/models.py`"))
    said = run("-c", MIGRATED + written("## Transactions") + HEALTHY, DJANGO_SETTINGS_MODULE="shop.settings")
    away = json.loads(run("manage.py", "db_health", "--json", status=2, **AWAY))

    assert "once, whatever happens" in said
    assert "unique orders_order ('number',) orders_order_number_key" in said
    assert "\nhealthy, " in said
    assert away["summary"]["reachable"] is False


def test_it_lists_every_check_there_is() -> None:
    source = (ROOT / "dbresilience" / "checks.py").read_text()

    assert set(re.findall(r"`dbresilience\.([EW]\d+)`", TEXT)) == set(re.findall(r'"dbresilience\.([EW]\d+)"', source))
