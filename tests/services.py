"""A pytest plugin that gives each run a PostgreSQL, a Redis and a Kafka of its own, before Django reads its settings.

Loaded with ``-p tests.services`` (see pyproject.toml). Workers of pytest-xdist have a PostgreSQL each (see clusters.py)
and a Kafka mock each, and share the Redis of the process that started them, where each takes a database number of its
own. Runs that select tests marked ``kafka`` or ``chaos`` get a real broker instead:
the one in TEST_KAFKA_BOOTSTRAP_SERVERS, else one of their own. Nothing here ever touches what ``make run`` started, nor
a server that the caller's environment names.
"""

from __future__ import annotations

import atexit
import os
import re
import secrets
import signal
import sys
import tempfile
from pathlib import Path

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from tests.clusters import FOLDER, WorkersPostgres, cluster_begin
from zenskar.sandbox import processes
from zenskar.sandbox.kafka import KafkaMock
from zenskar.sandbox.kafka_broker import KafkaBroker, KafkaUnavailable
from zenskar.sandbox.postgres import Postgres
from zenskar.sandbox.redis import Redis

REAL_BROKER = re.compile(r"(?<!not )\b(kafka|chaos)\b")
"""A marker expression that selects tests which need a real broker."""

FOREIGN = (
    "DATABASE_",
    "DB_",
    "REDIS_",
    "KAFKA_",
    "STRIPE_API",
    "STRIPE_WEBHOOK",
    "OUTBOX_",
    "ALERT_",
    "EMAIL_",
    "DEBUG",
    "CELERY_",
    "WEB_",
    "LOG_",
    "OTEL_",
)
"""What a developer's own environment may hold, and no test may see."""

# Byte code is kept between runs whatever the environment says: without it each run, and each worker, spends four
# seconds on rewriting the asserts of pytest's plugins.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# A run in the background of a shell is deaf to Ctrl-C, and so would be every process that a test stops by it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

_mock: KafkaMock | None = None
_postgres: WorkersPostgres | None = None


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    options = early_config.known_args_namespace
    if worker := os.environ.get("PYTEST_XDIST_WORKER"):
        _join(int(worker.removeprefix("gw")))
        return
    for name in [name for name in os.environ if name.startswith(FOREIGN)]:
        del os.environ[name]
    os.environ.update(
        SECRET_KEY="tests-only-" + "0" * 50,
        ALLOWED_HOSTS="*",
        HTTPS="false",
        PETSTORE="true",
        # What a process observed is written when a test asks for it, not by a thread that outlives the test's database.
        DB_STATISTICS_INTERVAL="0",
        DATABASE_URL="postgresql://127.0.0.1:1/no",
    )
    if options.help or options.version or options.collectonly or options.markers or options.showfixtures:
        return
    real = not options.markexpr or REAL_BROKER.search(options.markexpr) is not None
    if real and (servers := os.environ.get("TEST_KAFKA_BOOTSTRAP_SERVERS")):
        broker_asked(servers)
    folder = _folder()
    if getattr(options, "numprocesses", None):
        cluster_begin(folder)
    else:
        _start_postgres(folder)
    _start_redis(folder)
    _start_kafka(real=real)


def pytest_collection_finish() -> None:
    if _postgres is not None:
        _postgres.start()


def broker_asked(servers: str, *, seconds: float = 3.0) -> None:
    """Make sure that a broker answers there, before each test finds out for itself that none does.

    Raises:
        pytest.UsageError: none does.
    """
    try:
        AdminClient({"bootstrap.servers": servers, "log_level": 0}).list_topics(timeout=seconds)
    except KafkaException as exc:
        raise pytest.UsageError(
            f"No Kafka broker answers at {servers}, which KAFKA_BOOTSTRAP_SERVERS of this shell names (it stays "
            "behind where . .sandbox/env of a `make run` was read that has stopped). Unset it, for a broker of the "
            "tests' own, or name one that runs."
        ) from exc


def _start_postgres(folder: Path) -> None:
    postgres = Postgres(data=folder / "postgres", port=processes.free_port(), durable=False)
    atexit.register(postgres.stop, mode="immediate")
    postgres.start()
    os.environ["DATABASE_URL"] = postgres.url


def _start_redis(folder: Path) -> None:
    redis = Redis(port=processes.free_port(), log=folder / "redis.log")
    redis.start()
    atexit.register(redis.stop, with_signal=signal.SIGKILL)
    redis.wait_until_ready()
    os.environ["REDIS_URL"] = redis.url


def _start_kafka(*, real: bool) -> None:
    if not real:
        _own_mock()
        return
    os.environ["KAFKA_BOOTSTRAP_SERVERS"] = os.environ.get("TEST_KAFKA_BOOTSTRAP_SERVERS") or _own_broker()
    os.environ["KAFKA_TOPIC_PREFIX"] = f"test-{secrets.token_hex(4)}"


def _own_broker() -> str:
    broker = KafkaBroker(_folder() / "kafka")
    try:
        broker.start()
    except KafkaUnavailable as exc:
        raise pytest.UsageError(str(exc)) from exc
    atexit.register(broker.stop, with_signal=signal.SIGKILL)
    return broker.bootstrap_servers


def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="zenskar-test-"))
    processes.remove_afterwards(folder)
    # PostgreSQL runs as nobody when the tests run as root.
    folder.chmod(0o755)
    return folder


def _join(worker: int) -> None:
    """Take a share of the controller's services for one worker of pytest-xdist."""
    global _postgres
    if FOLDER in os.environ:
        _postgres = WorkersPostgres(worker)
        os.environ["DATABASE_URL"] = _postgres.url
    url, _, _ = os.environ.get("REDIS_URL", "redis://127.0.0.1:1/0").rpartition("/")
    os.environ["REDIS_URL"] = f"{url}/{worker + 1}"
    if "KAFKA_TOPIC_PREFIX" in os.environ:
        os.environ["KAFKA_TOPIC_PREFIX"] += f"-{worker}"
    else:
        _own_mock()


def _own_mock() -> None:
    global _mock
    _mock = KafkaMock()
    _mock.start()
    os.environ["KAFKA_BOOTSTRAP_SERVERS"] = _mock.bootstrap_servers
