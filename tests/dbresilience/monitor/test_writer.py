from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest
from django.db import connection

from dbresilience.models import Tally
from dbresilience.observations.names import TallyName

pytestmark = [pytest.mark.feature("B8")]

PROCESS = """
import sys, django
django.setup()
from django.db import Error, connection
def fail(table):
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT * FROM no_such_table")
    except Error:
        pass
fail(1)
sys.stdin.readline()
fail(2)
"""


def failures() -> int:
    row = Tally.objects.filter(name=TallyName.ERROR, key="42P01").first()
    return 0 if row is None else row.count


def test_it_writes_by_itself_and_once_more_when_the_process_ends() -> None:
    settings = connection.settings_dict
    url = f"postgresql://{settings['USER']}@{settings['HOST']}:{settings['PORT']}/{settings['NAME']}"
    environment = os.environ | {"DATABASE_URL": url, "DB_STATISTICS_INTERVAL": "0.2"}
    command = [sys.executable, "-c", PROCESS]

    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        deadline = time.monotonic() + 60
        while failures() == 0 and time.monotonic() < deadline:
            time.sleep(0.05)
        written_by_the_thread = failures()
        process.stdin.write("\n")
        process.stdin.close()

    assert process.returncode == 0
    assert written_by_the_thread == 1
    assert failures() == 2


def test_it_ends_promptly_while_the_database_is_away() -> None:
    environment = os.environ | {"DATABASE_URL": "postgresql://127.0.0.1:1/no", "DB_STATISTICS_INTERVAL": "0.2"}
    code = PROCESS.replace("fail(1)", "from dbresilience.observations.outcomes import retry_given_up as g; g('40P01')")

    started = time.monotonic()
    process = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        input="\n",
        text=True,
        capture_output=True,
        timeout=60,
        check=False,
    )

    assert process.returncode == 0, process.stderr
    assert "Traceback" not in process.stderr
    assert time.monotonic() - started < 30
