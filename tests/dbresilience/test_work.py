from __future__ import annotations

import pytest

from dbresilience.work import process_role, role_of
from tests.dbresilience.backends import one, pooled_alias

pytestmark = [pytest.mark.feature("B2", "B8")]


@pytest.mark.parametrize(
    ("arguments", "role"),
    [
        (["manage.py", "relay", "--metrics-port", "9"], "manage.py relay"),
        (["/srv/manage.py"], "manage.py"),
        (["/lib/celery/__main__.py", "-A", "zenskar.celery", "worker", "--loglevel", "INFO"], "celery worker"),
        (["/usr/bin/celery", "-A", "zenskar.celery", "beat"], "celery beat"),
        (["/lib/gunicorn/__main__.py", "-c", "settings.py", "zenskar.wsgi"], "gunicorn"),
        (["/usr/bin/import", "--password", "a secret"], "import"),
        (["-c"], "python"),
        ([], ""),
    ],
)
def test_it_says_what_a_process_is_and_nothing_of_its_arguments(arguments: list[str], role: str) -> None:
    assert role_of(arguments) == role


@pytest.mark.usefixtures("transactional_db")
def test_it_tells_the_server_who_connects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["manage.py", "relay"])

    with pooled_alias():
        name = one("SELECT current_setting('application_name')")

    assert name == "manage.py relay"
    assert process_role() == "manage.py relay"
