"""A durable PostgreSQL and a Kafka mock of the benchmark's own, both outside of the measuring process."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from zenskar.sandbox.postgres import Postgres, free_port
from zenskar.sandbox.redis import Redis

BROKER = """
import sys, time
from zenskar.sandbox.kafka import KafkaMock
mock = KafkaMock()
mock.start()
print(mock.bootstrap_servers, flush=True)
sys.stdin.read()
"""


@contextmanager
def servers() -> Iterator[None]:
    """Start them, point the settings' variables at them, set Django up and migrate."""
    with tempfile.TemporaryDirectory(prefix="zenskar-bench-") as folder:
        Path(folder).chmod(0o755)
        postgres = Postgres(data=Path(folder) / "postgres", port=free_port(), durable=True)
        postgres.start()
        redis = Redis(port=free_port(), log=Path(folder) / "redis.log")
        redis.start()
        broker = subprocess.Popen(
            [sys.executable, "-c", BROKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert broker.stdout is not None
        os.environ.update(
            DATABASE_URL=postgres.url,
            REDIS_URL=redis.url,
            KAFKA_BOOTSTRAP_SERVERS=broker.stdout.readline().strip(),
            SECRET_KEY="benchmarks-only-" + "0" * 50,
            LOG_LEVEL="ERROR",
            ALLOWED_HOSTS="*",
            HTTPS="false",
            DJANGO_SETTINGS_MODULE="zenskar.settings",
        )
        try:
            import django

            django.setup()
            from django.core.management import call_command

            call_command("migrate", verbosity=0)
            yield
        finally:
            from django.db import connections

            connections.close_all()
            assert broker.stdin is not None
            broker.stdin.close()
            broker.wait(timeout=10)
            redis.stop()
            postgres.stop()
