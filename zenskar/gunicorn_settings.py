"""Settings of gunicorn, the same wherever the web process runs.

``python -m zenskar.web``. The address is given by ``PORT`` or on the command line (``--bind``), as is anything that a
place needs differently.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from typing import Any

from dbresilience.typed_settings import as_whole
from zenskar.starting import wrong_settings_told

with wrong_settings_told():
    workers = as_whole("WEB_CONCURRENCY", os.environ.get("WEB_CONCURRENCY", "").strip() or 2, 1, 1000)
worker_class = "zenskar.web_worker.DeadlineThreadWorker"
# Requests that are worked on at once; the worker has more threads, for those that wait and for probes. Each borrows a
# database connection for as long as it takes, of the pool of its process.
threads = 32
# Seconds. A connection without a request is closed after that long; it holds no thread.
keepalive = 10
# Code and settings are read once, and shared by the processes.
preload_app = True
control_socket_disable = True

# What a client says of itself is not believed here, from wherever it connects: gunicorn would take the path, the scheme
# and the address of a request from headers that a client on the same machine or socket sends. ``TRUSTED_PROXIES`` alone
# says whether there is a proxy whose headers count.
forwarded_allow_ips = ""
forwarder_headers = ""
secure_scheme_headers: dict[str, str] = {}

# The counters of all web processes are added up, through files that the first import of prometheus_client must know of.
# Made here unless the deployment names a folder, which it then empties itself before each start.
_own_metrics = (
    "" if os.environ.get("PROMETHEUS_MULTIPROC_DIR", "").strip() else tempfile.mkdtemp(prefix="zenskar-metrics-")
)
if _own_metrics:
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = _own_metrics


def child_exit(server: Any, worker: Any) -> None:
    """Gunicorn's hook: what a process that ended had counted stays, what it was at is forgotten."""
    from prometheus_client.multiprocess import mark_process_dead

    mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]


def on_exit(server: Any) -> None:
    """Gunicorn's hook: nothing is left behind."""
    if _own_metrics:
        shutil.rmtree(_own_metrics, ignore_errors=True)
