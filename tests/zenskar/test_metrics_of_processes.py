"""Metrics of several web processes behind one address, as in production."""

from __future__ import annotations

import os
import re
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from zenskar.sandbox import processes

pytestmark = pytest.mark.feature("A13")

ROOT = Path(__file__).resolve().parent.parent.parent
COUNTED = re.compile(
    r'^zenskar_http_requests_total\{method="GET",route="\^livez/\?\$",status="200"\} (\S+)$', re.MULTILINE
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def port(folder: Path) -> Iterator[int]:
    port, log = processes.free_port(), folder / "web.log"
    command = [sys.executable, "-m", "gunicorn", "-c", "zenskar/gunicorn_settings.py", "zenskar.wsgi"]
    command += ["--bind", f"127.0.0.1:{port}", "--workers", "2", "--graceful-timeout", "1"]
    environment = os.environ | {
        "DJANGO_SETTINGS_MODULE": "zenskar.settings",
        "METRICS_TOKEN": "s3cret-token",
        "TMPDIR": str(folder),
    }
    environment.pop("PROMETHEUS_MULTIPROC_DIR", None)
    process = processes.start(command, log=log, env=environment, cwd=ROOT)
    processes.wait_for_port(process, port, name="web", log=log)
    yield port
    processes.stop(process, grace=5)
    assert "Traceback" not in log.read_text()
    # What it made for its counters is gone with it.
    assert list(folder.glob("zenskar-metrics-*")) == []


def get(port: int, path: str) -> str:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", headers={"Authorization": "Bearer s3cret-token", "Connection": "close"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return str(answer.read().decode())


def test_each_process_tells_what_all_of_them_counted(port: int, folder: Path) -> None:
    for _ in range(20):
        get(port, "/livez")

    counts = [COUNTED.findall(get(port, "/metrics")) for _ in range(6)]

    assert counts == [["20.0"]] * 6
    assert len(list(folder.glob("zenskar-metrics-*/counter_*.db"))) >= 2
