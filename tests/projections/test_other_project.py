"""``docs/elsewhere.md``, followed as it is written, in a project that was just started."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.projects import empty_database

pytestmark = [pytest.mark.feature("H3", "F2"), pytest.mark.timeout(240)]

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "elsewhere.md").read_text()
# What the pages and the API answer, asked as the reader would with a browser and curl.
ASKED = """
from django.contrib.auth.models import User
from django.test import Client
from operations.keys import apikey_create

admin = Client(HTTP_HOST="localhost")
admin.force_login(User.objects.create(username="ann", is_staff=True, is_superuser=True))
issued = apikey_create(name="x", scopes=["operations:read"])
key = Client(HTTP_HOST="localhost", headers={"Authorization": issued.authorization})
asked = ["/admin/", "/admin/outbox/storedevent/", "/admin/projections/", "/admin/life/?q=101"]
print("PAGES", [admin.get(page).status_code for page in asked])
print("LOOKS", "operations/console.css" in admin.get("/admin/").content.decode())
api = "/api/v1/admin/life/?q="
stranger = Client(HTTP_HOST="localhost")
print("API", [one.get(api + q).status_code for one, q in ((stranger, "101"), (key, "101"), (key, "x"))])
print("TAKEN", Seats.objects.get(room="101").taken)
"""


@pytest.fixture
def database() -> Iterator[dict[str, str]]:
    with empty_database("hotel") as environment:
        yield environment


def blocks(lang: str) -> list[str]:
    return re.findall(rf"```{lang}\n(.*?)```", TEXT, re.DOTALL)


def written(file: str) -> str:
    """The block that the page says is this file."""
    return re.search(rf"`{re.escape(file)}`.*?```python\n(.*?)```", TEXT, re.DOTALL).group(1)  # type: ignore[union-attr]


# Takes longer than other tests: each step is a process of its own, as it is for the reader.
def test_it_works_as_it_is_written(tmp_path: Path, database: dict[str, str]) -> None:
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        **database,
        "REDIS_URL": os.environ["REDIS_URL"],
    }

    def run(*arguments: str, text: str = "") -> str:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=tmp_path,
            env=environment,
            input=text,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    settings = tmp_path / "hotel" / "settings.py"
    run("-m", "django", "startproject", "hotel", ".")
    run("manage.py", "startapp", "rooms")
    settings.write_text(settings.read_text() + written("hotel/settings.py"))
    for file in ("rooms/models.py", "rooms/services.py", "rooms/seats.py"):
        (tmp_path / file).write_text(written(file))
    run("manage.py", "makemigrations", "rooms")
    (tmp_path / "rooms" / "migrations" / "0002_view.py").write_text(written("rooms/migrations/0002_view.py"))
    # The console's and the API's part, at once.
    *_, console, urls, framework, problems = blocks("python")
    settings.write_text(settings.read_text() + console + framework)
    (tmp_path / "hotel" / "urls.py").write_text(urls)
    (tmp_path / "hotel" / "problems.py").write_text(problems)
    run("manage.py", "migrate")
    (shell,) = [block for block in blocks("python") if "wait_for(" in block]
    relay = subprocess.Popen(
        [sys.executable, "manage.py", "relay"],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
    )
    try:
        said = run("manage.py", "shell", "-v", "0", text=shell + ASKED)
    finally:
        relay.terminate()
        relay.wait(60)
    verified = run("manage.py", "projection_verify")
    checked = run("manage.py", "check", "--fail-level", "WARNING")

    assert "PAGES [200, 200, 200, 200]" in said
    assert "API [401, 200, 404]" in said
    assert "TAKEN 1" in said
    assert "LOOKS True" in said
    assert "as it should be" in verified
    assert "no issues" in checked
