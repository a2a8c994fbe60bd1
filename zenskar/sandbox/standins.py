"""Starts what the environment names no address of: PostgreSQL, Redis, Kafka and Stripe."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

from zenskar.sandbox import processes
from zenskar.sandbox.folder import SandboxFolder
from zenskar.sandbox.kafka import KafkaMock
from zenskar.sandbox.postgres import Postgres
from zenskar.sandbox.redis import Redis

STRIPE_KEY_PREFIX = "sk_test_"
"""The sandbox refuses live keys; the one that is made here is a test key of its own."""


@dataclass
class StandIns:
    """The servers of one ``make run``; a service whose address is in the environment is used, not started.

    Attributes:
        started: names of those that run here, for what is printed.
        running: their processes by name.
    """

    folder: SandboxFolder
    web_url: str
    started: list[str] = field(default_factory=list)
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _servers: list[Postgres | Redis | KafkaMock] = field(default_factory=list, repr=False)

    def start(self) -> dict[str, str]:
        """Start what is missing; the fast ones come up while PostgreSQL does.

        Returns:
            the environment that leads the product to all of them.
        """
        redis = self._redis() if not os.environ.get("REDIS_URL") else None
        stripe = self._stripe() if not os.environ.get("STRIPE_API_KEY") else {}
        environment = {**self._kafka(), **stripe}
        environment["DATABASE_URL"] = os.environ.get("DATABASE_URL") or self._postgres()
        environment["REDIS_URL"] = os.environ.get("REDIS_URL") or ""
        if redis is not None:
            redis.wait_until_ready()
            environment["REDIS_URL"] = redis.url
        if stripe:
            environment["STRIPE_API_BASE"] = self._stripe_url()
        return environment

    def stop_soon(self) -> None:
        """Begin with what can be done while others still use the servers."""
        for server in self._servers:
            if isinstance(server, Postgres):
                server.write_out_soon()

    def stop(self) -> None:
        """Stop all of them, beside one another."""
        stops: list[Callable[[], object]] = [server.stop for server in self._servers]
        if (stripe := self.running.get("stripe")) is not None:
            stops.append(partial(processes.stop, stripe))
        if stops:
            with ThreadPoolExecutor(len(stops)) as threads:
                for ending in [threads.submit(stop) for stop in stops]:
                    ending.result()

    def _postgres(self) -> str:
        log = self.folder.log("postgres")
        password = self.folder.secret("database-password")
        data = self.folder.postgres_data()
        postgres = Postgres(data=data, port=processes.free_port(), log_file=log, password=password)
        self._servers.append(postgres)
        postgres.start()
        self._note("postgres", postgres.process)
        return postgres.url

    def _redis(self) -> Redis:
        password, log = self.folder.secret("redis-password"), self.folder.log("redis")
        redis = Redis(port=processes.free_port(), log=log, data=self.folder.redis, password=password)
        self._servers.append(redis)
        redis.start()
        self._note("redis", redis.process)
        return redis

    def _kafka(self) -> dict[str, str]:
        servers = os.environ.get("KAFKA_BOOTSTRAP_SERVERS") or os.environ.get("KAFKA_BROKERS")
        if not servers:
            mock = KafkaMock()
            self._servers.append(mock)
            mock.start()
            self.started.append("kafka")
            servers = mock.bootstrap_servers
        return {"KAFKA_BOOTSTRAP_SERVERS": servers}

    def _stripe(self) -> dict[str, str]:
        key = self.folder.secret("stripe-api-key", prefix=STRIPE_KEY_PREFIX)
        secret = self.folder.secret("stripe-webhook-secret", prefix="whsec_")
        command = [sys.executable, "-m", "zenskar.sandbox.stripe", "--port", "0", "--search-lag", "1"]
        command += ["--api-key", key, "--webhook-secret", secret, "--state", str(self.folder.stripe_state)]
        command += ["--webhook-url", f"{self.web_url}/webhooks/stripe"]
        self._note("stripe", processes.start(command, log=self.folder.log("stripe")))
        return {"STRIPE_API_KEY": key, "STRIPE_WEBHOOK_SECRET": secret}

    def _stripe_url(self) -> str:
        """The address that the Stripe sandbox printed."""
        log, process = self.folder.log("stripe"), self.running["stripe"]
        deadline = time.monotonic() + 30
        while True:
            if found := re.search(r"^stripe sandbox: (http\S+)", log.read_text(), re.MULTILINE):
                return found[1].rstrip("/")
            if process.poll() is not None or time.monotonic() > deadline:
                raise processes.StartFailed(f"The Stripe sandbox did not start:\n{processes.last_lines(log)}")
            time.sleep(0.02)

    def _note(self, name: str, process: subprocess.Popen[bytes] | None) -> None:
        if process is not None:
            self.started.append(name)
            self.running[name] = process
