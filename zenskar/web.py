"""The web process: ``python -m zenskar.web [options of gunicorn]``, on port ``PORT`` unless ``--bind`` says otherwise.

gunicorn reads some of its settings while it is imported, before any file of ours, and ends in a traceback where one of
them is wrong. So those are looked at here, and then gunicorn takes the place of this process.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from dbresilience.typed_settings import as_whole
from zenskar.starting import wrong_settings_told

SETTINGS = Path(__file__).resolve().with_name("gunicorn_settings.py")


def main(arguments: list[str]) -> None:
    """Become gunicorn.

    Raises:
        SystemExit: with status 1, a setting is wrong.
    """
    with wrong_settings_told():
        for name, low, high in (("WEB_CONCURRENCY", 1, 1000), ("PORT", 1, 65_535)):
            given = os.environ.get(name, "").strip()
            if given:
                # gunicorn takes an empty one for a wrong one; what it gets is a number or nothing.
                os.environ[name] = str(as_whole(name, given, low, high))
            else:
                os.environ.pop(name, None)
    gunicorn = [sys.executable, "-m", "gunicorn", "-c", str(SETTINGS), "zenskar.wsgi", *arguments]
    os.execv(sys.executable, gunicorn)  # noqa: S606 - as intended: no shell


if __name__ == "__main__":
    main(sys.argv[1:])
