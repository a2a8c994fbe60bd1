"""What the README says of settings and commands, against the code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from django.core.management import get_commands

ROOT: Final = Path(__file__).resolve().parent.parent
README: Final = (ROOT / "README.md").read_text()
DOCUMENTED: Final = "\n".join([README, *(path.read_text() for path in sorted((ROOT / "docs").glob("*.md")))])

# A name that is handed to a function which reads it: env.str("NAME"), os.environ.get("NAME"), _number("NAME", …).
READ: Final = re.compile(r'\w\(\s*"([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)*)"')
NO_SETTINGS: Final = {"HTTP_X_FORWARDED_PROTO"}


def _section(title: str) -> str:
    return README.partition(f"## {title}\n")[2].partition("\n## ")[0]


def _read() -> set[str]:
    places = [*ROOT.glob("*/conf.py"), *ROOT.glob("*/*/conf.py"), ROOT / "zenskar" / "settings.py"]
    places += [ROOT / "zenskar" / "gunicorn_settings.py"]
    return {name for path in places for name in READ.findall(path.read_text())}


def test_every_setting_is_documented() -> None:
    names = _read() - NO_SETTINGS

    unknown = {name for name in names if not re.search(rf"\b{name}\b", DOCUMENTED)}

    assert len(names) > 50
    assert unknown == set()


def test_every_setting_that_is_documented_is_read() -> None:
    cells = [line.split("|")[1] for line in _section("Settings").splitlines() if line.startswith("| `")]
    documented = {name for cell in cells for name in re.findall(r"`([A-Z][A-Z0-9_]+)`", cell)}

    assert len(documented) > 40
    assert documented - _read() == set()


def test_every_command_that_is_documented_exists() -> None:
    named = set(re.findall(r"manage\.py (\w+)", DOCUMENTED)) - {"help"}

    assert named
    assert named - set(get_commands()) == set()


def test_every_command_of_ours_is_documented() -> None:
    ours = {name for name, app in get_commands().items() if (ROOT / str(app)).is_dir()} - {"migrate"}

    assert {name for name in ours if not re.search(rf"\b{name}\b", DOCUMENTED)} == set()


def test_every_target_that_is_documented_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    named = set(re.findall(r"`make ([a-z-]+)`|^make ([a-z-]+)$", README, re.MULTILINE))

    assert {name for pair in named for name in pair if name and f"\n{name}:" not in makefile} == set()


def test_every_file_that_is_linked_exists() -> None:
    links = set(re.findall(r"\]\(([^):#]+)\)", README))

    assert links
    assert {link for link in links if not (ROOT / link).exists()} == set()
