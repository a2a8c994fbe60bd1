"""A Celery application whose one task asks the database something and notes when."""

from __future__ import annotations

import os
import time

import redis
from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "benchmarks.dbresilience.settings")

app = Celery("benchmark", broker=os.environ["BENCHMARK_REDIS"])
app.conf.update(task_ignore_result=True, worker_prefetch_multiplier=4, worker_hijack_root_logger=False)


@app.task(name="benchmark.ask")
def ask() -> None:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        (backend,) = cursor.fetchone()
    client = redis.Redis.from_url(os.environ["BENCHMARK_REDIS"])
    client.rpush("asked", f"{time.time()} {backend}")
    client.close()
