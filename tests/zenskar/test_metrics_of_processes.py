"""Metrics of several web processes behind one address, as in production."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Web:
    pid: int
    port: int

    def workers(self) -> set[int]:
        return {int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()}


@pytest.fixture
def web(folder: Path) -> Iterator[Web]:
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
    yield Web(process.pid, port)
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


def test_each_process_tells_what_all_of_them_counted(web: Web, folder: Path) -> None:
    for _ in range(20):
        get(web.port, "/livez")

    counts = [COUNTED.findall(get(web.port, "/metrics")) for _ in range(6)]

    assert counts == [["20.0"]] * 6
    assert len(list(folder.glob("zenskar-metrics-*/counter_*.db"))) >= 2


def test_a_process_that_died_takes_no_count_with_it(web: Web) -> None:
    for _ in range(20):
        get(web.port, "/livez")

    # One after the other, so that each of those that counted is gone in the end.
    for victim in web.workers():
        os.kill(victim, signal.SIGKILL)
        end = time.monotonic() + 60
        while victim in web.workers() or len(web.workers()) < 2:
            assert time.monotonic() < end
            time.sleep(0.05)
    counts = [COUNTED.findall(get(web.port, "/metrics")) for _ in range(6)]

    assert counts == [["20.0"]] * 6
