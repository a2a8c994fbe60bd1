from __future__ import annotations

from pathlib import Path

import pytest
from django.apps import apps

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.feature("F2")
@pytest.mark.parametrize("name", ["manage.py", "requirements.txt", "docker-compose.yml", "README.md", "tests"])
def test_it_has_what_a_newcomer_looks_for(name: str) -> None:
    assert (ROOT / name).exists()


@pytest.mark.feature("F2")
@pytest.mark.parametrize("name", ["customers", "projections", "outbox", "operations", "dbresilience"])
def test_it_has_each_app_in_a_folder_of_its_own(name: str) -> None:
    assert Path(apps.get_app_config(name).path) == ROOT / name


@pytest.mark.feature("F2")
def test_it_shows_both_commands_on_lines_of_their_own() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()

    assert {"make run", "make test"} <= set(lines)
