"""Django's own tests of connections and transactions, on our backend and on Django's, with and without a pool.

``python -m tests.dbresilience.django_suite [--labels backends …]`` fetches Django's source distribution of the
installed version (the wheel holds no tests), starts a PostgreSQL of its own, runs the suites on each backend and prints
a table; the exit status is 1 when something failed on ours that does not fail on Django's.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any, Final

import django

from zenskar.sandbox.postgres import Postgres
from zenskar.sandbox.processes import free_port

LABELS: Final = ("backends", "transactions", "transaction_hooks", "select_for_update")
OURS: Final = "dbresilience.postgresql"
DJANGOS: Final = "django.db.backends.postgresql"

_ROOT: Final = Path(__file__).resolve().parents[2]
_SETTINGS: Final = """
import json, os
DATABASES = json.loads(os.environ["SUITE_DATABASES"])
SECRET_KEY = "django_tests_secret_key"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
USE_TZ = False
"""
_FAILURE: Final = re.compile(r"^(?:FAIL|ERROR): (\S+ \(\S+\))", re.MULTILINE)
_COUNT: Final = re.compile(r"^Ran (\d+) tests? in ([\d.]+)s", re.MULTILINE)
_SKIPPED: Final = re.compile(r"skipped=(\d+)")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--labels", nargs="+", default=LABELS)
    parser.add_argument("--source", type=Path, help="Django's unpacked source; fetched when not given")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="django-suite-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        source = options.source or _fetch(folder)
        (folder / "suite_settings.py").write_text(_SETTINGS)
        postgres = Postgres(data=folder / "postgres", port=free_port(), durable=False)
        postgres.start()
        try:
            return _compare(source, folder, postgres, options.labels)
        finally:
            postgres.stop(mode="immediate")


def _fetch(folder: Path) -> Path:
    """Django's source distribution of the installed version, from the package index."""
    version = django.get_version()
    # The environment of the project has no pip of its own; the Python that it was made with has.
    python = getattr(sys, "_base_executable", sys.executable)
    options = ["--quiet", "--no-deps", "--no-binary", ":all:", "--dest", str(folder)]
    subprocess.run([python, "-m", "pip", "download", *options, f"django=={version}"], check=True)
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        opened.extractall(folder, filter="data")
    return folder / archive.name.removesuffix(".tar.gz")


def _compare(source: Path, folder: Path, postgres: Postgres, labels: list[str]) -> int:
    known: set[str] = set()
    news = 0
    for engine, pool in ((DJANGOS, False), (DJANGOS, True), (OURS, False), (OURS, True)):
        failed, summary = _run(source, folder, postgres, engine, pool, labels)
        print(f"{engine:32}{'pool' if pool else 'no pool':10}{summary}", flush=True)
        if engine == DJANGOS:
            known |= failed
        for one in sorted(failed):
            print(f"    {'as with Django' if one in known else 'OURS ALONE':16}{one}")
        news += len(failed - known)
    return 1 if news else 0


def _run(
    source: Path, folder: Path, postgres: Postgres, engine: str, pool: bool, labels: list[str]
) -> tuple[set[str], str]:
    database: dict[str, Any] = {
        "ENGINE": engine,
        "USER": "zenskar",
        "HOST": "127.0.0.1",
        "PORT": str(postgres.port),
        "OPTIONS": {"pool": pool},
    }
    databases = {alias: database | {"NAME": f"zenskar_{alias}"} for alias in ("default", "other")}
    # What Django connects to before it makes the test databases.
    databases["default"]["NAME"] = "zenskar"
    environment = os.environ | {
        "SUITE_DATABASES": json.dumps(databases),
        "PYTHONPATH": os.pathsep.join([str(folder), str(_ROOT)]),
        "SECRET_KEY": "django-suite",
    }
    command = [sys.executable, "runtests.py", "--settings=suite_settings", "--parallel=1", "--noinput", *labels]
    answer = subprocess.run(command, cwd=source / "tests", env=environment, capture_output=True, text=True, check=False)
    output = answer.stdout + answer.stderr
    counted = _COUNT.search(output)
    if counted is None:
        return {"the run itself"}, output[-3000:]
    failed = set(_FAILURE.findall(output))
    skipped = _SKIPPED.search(output)
    return failed, f"{counted[1]} tests, {len(failed)} failed, {skipped[1] if skipped else 0} skipped, {counted[2]} s"


if __name__ == "__main__":
    sys.exit(main())
