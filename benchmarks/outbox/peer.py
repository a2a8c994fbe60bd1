"""django-outbox-pattern 3.2.1 on the same payload: its own publisher, which sends to Kafka's mock instead of STOMP.

It has no place to put another broker in but its connection class, so that is what it gets: one that hands each message
to librdkafka and flushes at the end. That favours it: STOMP would wait for each message.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = ROOT / ".bench" / "peer"

SCRIPT = """
import json, os, sys, time, urllib.parse
import django
from django.conf import settings

url = urllib.parse.urlsplit(os.environ["PEER_DATABASE_URL"])
settings.configure(
    DATABASES={"default": {"ENGINE": "django.db.backends.postgresql", "NAME": url.path[1:], "HOST": url.hostname,
                           "PORT": url.port, "USER": url.username,
                           "PASSWORD": urllib.parse.unquote(url.password or "")}},
    INSTALLED_APPS=["django_outbox_pattern"], USE_TZ=True, SECRET_KEY="x",
    DJANGO_OUTBOX_PATTERN={"DEFAULT_CONNECTION_CLASS": "__main__.Connection", "DEFAULT_PRODUCER_WAITING_TIME": 0},
)


class Connection:
    def __init__(self, **_):
        from confluent_kafka import Producer
        servers = os.environ["KAFKA_BOOTSTRAP_SERVERS"]
        self.producer = Producer({"bootstrap.servers": servers, "enable.idempotence": True, "acks": "all",
                                  "linger.ms": 5, "compression.type": "lz4",
                                  "queue.buffering.max.messages": 1000000})

    def set_listener(self, *_): pass
    connected = False
    def connect(self, *_, **__): self.connected = True
    def is_connected(self): return self.connected
    def disconnect(self, *_, **__): self.producer.flush(); self.connected = False

    def send(self, body, destination, headers=None, **_):
        self.producer.produce("peer." + destination, body, key=headers.get("key"),
                              headers=[(k, str(v)) for k, v in (headers or {}).items()])
        self.producer.poll(0)


sys.modules["__main__"].Connection = Connection
django.setup()
from django.core.management import call_command
call_command("migrate", verbosity=0)
from django.db import connection
from django_outbox_pattern.factories import factory_producer
from django_outbox_pattern.models import Published
from django_outbox_pattern.choices import StatusChoice

count, payload = int(sys.argv[1]), json.loads(sys.argv[2])
Published.objects.all().delete()
for start in range(0, count, 5000):
    Published.objects.bulk_create(
        [Published(destination="customers", body=payload) for _ in range(min(5000, count - start))]
    )
with connection.cursor() as cursor:
    cursor.execute("VACUUM ANALYZE published")
    cursor.execute("CHECKPOINT")
producer = factory_producer()
started = time.perf_counter()
producer.publish_message_from_database()
connection_ = producer.connection
connection_.producer.flush()
seconds = time.perf_counter() - started
done = Published.objects.filter(status=StatusChoice.SUCCEEDED).count()
print(json.dumps({"events": done, "seconds": seconds}))
"""


def drain(events: int) -> float:
    """Events per second; its backlog is one transaction, so it is given as many as it takes in some seconds."""
    import json

    from benchmarks.outbox.load import PAYLOAD

    python = _environment()
    database = os.environ["DATABASE_URL"].rpartition("/")[0] + "/peer"
    _create_database(database)
    environment = {**os.environ, "PEER_DATABASE_URL": database}
    environment.pop("DJANGO_SETTINGS_MODULE", None)
    done = subprocess.run(
        [python, "-c", SCRIPT, str(events), json.dumps(PAYLOAD)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        cwd=FOLDER,
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["events"] == events, result
    return events / float(result["seconds"])


def _environment() -> Path:
    python = FOLDER / "bin" / "python"
    if python.exists():
        return python
    requirements = str(ROOT / "requirements-bench.txt")
    if uv := shutil.which("uv"):
        subprocess.run([uv, "venv", "-q", "--python", sys.executable, FOLDER], check=True)
        subprocess.run([uv, "pip", "install", "-q", "--python", python, "-r", requirements], check=True)
    else:
        subprocess.run([sys.executable, "-m", "venv", FOLDER], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "-r", requirements], check=True)
    return python


def _create_database(url: str) -> None:
    import psycopg

    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as session:
        name = url.rpartition("/")[2]
        session.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        session.execute(f"CREATE DATABASE {name}")
