"""``make run``: starts everything, shows the main job once, and stops all of it together."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from zenskar.sandbox import processes, screen
from zenskar.sandbox.accounts import Accounts
from zenskar.sandbox.demo import DemoFailed, demo_run
from zenskar.sandbox.folder import Endpoints, SandboxFolder
from zenskar.sandbox.standins import StandIns

ROOT = Path(__file__).resolve().parent.parent.parent
DEFAULT_PORT = 8000

TRUE = ("true", "on", "ok", "y", "yes", "1")
"""What settings take for true."""


class Stopped(BaseException):
    """Somebody pressed Ctrl-C or sent SIGTERM; no ``except Exception`` on the way may swallow it."""


class ProcessDied(Exception):
    """One of the processes ended by itself; the message names it and shows the end of its log."""


class Supervisor:
    """One ``make run``.

    Args:
        folder: what is kept between starts.
        once: stop after the main job was shown, for a check in CI.
    """

    def __init__(self, folder: SandboxFolder, *, once: bool = False) -> None:
        self.folder = folder
        self.once = once
        self.apps: dict[str, subprocess.Popen[bytes]] = {}

    def run(self) -> None:
        """Run until somebody stops it, or a process dies.

        Raises:
            AlreadyRunning: another one uses the folder.
            StartFailed, PostgresUnavailable, RedisUnavailable, ProcessDied, DemoFailed: what went wrong, for a person.
        """
        # Everything that is written from here on is for its owner alone: it holds passwords, keys and data.
        os.umask(0o077)
        self.folder.open()
        self.folder.fresh_logs()
        self.folder.forget_shell(os.environ)
        port = web_port()
        web = f"http://127.0.0.1:{port}"
        standins = StandIns(self.folder, web_url=web)
        try:
            with screen.step("servers") as done:
                addresses = standins.start()
                done(", ".join(standins.started) or "all yours")
            environment = self._environment(addresses, web)
            with screen.step("database up to date, admin and API key"):
                accounts = self._prepare(environment)
            endpoints = self._endpoints(web, accounts, environment)
            self.folder.write_endpoints(endpoints)
            self.folder.write_shell(_for_a_shell(environment, addresses, endpoints))
            commands = _commands(environment, port)
            with screen.step(", ".join(commands)):
                self._start_apps(commands, environment)
                self._wait_until_ready(web)
            self._show(endpoints, standins, environment)
            if not self.once:
                self._watch(standins)
        finally:
            with _undisturbed():
                print("\nStopping all of it …", flush=True)
                standins.stop_soon()
                processes.stop_together(list(self.apps.values()), grace=6)
                standins.stop()
                self.folder.close()

    def _environment(self, addresses: dict[str, str], web: str) -> dict[str, str]:
        """What our processes run with: the caller's environment, the servers' addresses, what suits one machine."""
        defaults = {
            "DJANGO_SETTINGS_MODULE": "zenskar.settings",
            "SECRET_KEY": self.folder.secret("secret-key"),
            "ALLOWED_HOSTS": "127.0.0.1,localhost,[::1]",
            "CSRF_TRUSTED_ORIGINS": web,
            "HTTPS": "false",
            "LOG_FORMAT": "console",
            "PETSTORE": "true",
            "PYTHONUNBUFFERED": "1",
        }
        environment = {**defaults, **os.environ, **addresses}
        # Six processes import the same modules: compiled once, they start in half the time.
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        return environment

    def _prepare(self, environment: dict[str, str]) -> Accounts:
        known = json.dumps(self.folder.read_endpoints()).encode()
        log = self.folder.log("prepare")
        with log.open("wb") as errors:
            answer = subprocess.run(
                [sys.executable, "-m", "zenskar.sandbox.accounts"],
                input=known,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment,
                cwd=ROOT,
                check=False,
            )
        if answer.returncode != 0:
            raise processes.StartFailed(f"The database could not be brought up to date:\n{processes.last_lines(log)}")
        return Accounts(**json.loads(answer.stdout.splitlines()[-1]))

    def _endpoints(self, web: str, accounts: Accounts, environment: dict[str, str]) -> Endpoints:
        return {
            "web": web,
            "admin_user": accounts.admin_user,
            "admin_password": accounts.admin_password,
            "api_key": accounts.api_key,
            "authorization": f"Bearer {accounts.api_key}",
            "database_url": environment["DATABASE_URL"],
            "redis_url": environment["REDIS_URL"],
            "kafka_bootstrap_servers": environment["KAFKA_BOOTSTRAP_SERVERS"],
            "stripe_api_base": environment.get("STRIPE_API_BASE", ""),
            "stripe_api_key": environment["STRIPE_API_KEY"],
            "stripe_webhook_secret": environment.get("STRIPE_WEBHOOK_SECRET", ""),
        }

    def _start_apps(self, commands: dict[str, list[str]], environment: dict[str, str]) -> None:
        for name, command in commands.items():
            self.apps[name] = processes.start(command, log=self.folder.log(name), env=environment, cwd=ROOT)

    def _wait_until_ready(self, web: str) -> None:
        deadline = time.monotonic() + 60
        while not _answers(f"{web}/readyz"):
            self._check_alive(self.apps)
            if time.monotonic() > deadline:
                raise processes.StartFailed(f"{web}/readyz did not answer:\n{self._end_of_log('web')}")
            time.sleep(0.05)

    def _show(self, endpoints: Endpoints, standins: StandIns, environment: dict[str, str]) -> None:
        if "stripe" in standins.started and "postgres" in standins.started:
            with screen.step("the main job, once") as done:
                topic = f"{environment.get('KAFKA_TOPIC_PREFIX', 'zenskar')}.customers"
                try:
                    done(demo_run(endpoints, topic=topic, remembered=self.folder.path / "demo-customer"))
                except DemoFailed:
                    # A process that died is the better reason.
                    self._check_alive({**standins.running, **self.apps})
                    raise
        else:
            print(
                "         the main job is not shown: it would leave its customer in a database or a Stripe of your own"
            )
        if not self.once:
            screen.print_addresses(endpoints, standins.started, self.folder)

    def _watch(self, standins: StandIns) -> None:
        while True:
            self._check_alive({**standins.running, **self.apps})
            time.sleep(0.2)

    def _check_alive(self, running: dict[str, subprocess.Popen[bytes]]) -> None:
        for name, process in running.items():
            if (status := process.poll()) is not None:
                raise ProcessDied(f"{name} ended by itself (exit status {status}):\n{self._end_of_log(name)}")

    def _end_of_log(self, name: str) -> str:
        log = self.folder.log(name)
        return f"{processes.last_lines(log)}\n  … {log}"


def _commands(environment: dict[str, str], port: int) -> dict[str, list[str]]:
    """The processes of the product, in the order in which they start; a consumer for each group that has handlers."""
    python = sys.executable
    celery = [python, "-m", "celery", "-A", "zenskar.celery"]
    gunicorn = [python, "-m", "gunicorn", "-c", "zenskar/gunicorn_settings.py", "zenskar.wsgi"]
    commands = {
        "web": [*gunicorn, "--bind", f"127.0.0.1:{port}", "--graceful-timeout", "4"],
        "relay": [python, "manage.py", "relay"],
        "worker": [*celery, "worker", "--loglevel", "INFO"],
        "beat": [*celery, "beat", "--loglevel", "INFO", "--pidfile="],
    }
    groups = {
        "shipping": environment["PETSTORE"].strip().lower() in TRUE,
        "sync": environment.get("SYNC_ROUTE") == "kafka",
    }
    for group, wanted in groups.items():
        if wanted:
            commands[group] = [python, "manage.py", "kafka_worker", "--group", group]
    return commands


def _for_a_shell(environment: dict[str, str], addresses: dict[str, str], endpoints: Endpoints) -> dict[str, str]:
    """What ``manage.py`` needs to reach all of this, and what calls of the API from a shell want."""
    names = ("SECRET_KEY", "ALLOWED_HOSTS", "CSRF_TRUSTED_ORIGINS", "HTTPS", "LOG_FORMAT", "PETSTORE", *addresses)
    ours = {name: environment[name] for name in names}
    return ours | {"WEB": endpoints["web"], "AUTHORIZATION": endpoints["authorization"]}


def web_port() -> int:
    """PORT when it is set, else 8000, else the next free one.

    Raises:
        StartFailed: PORT is no port, is taken, or is not allowed to us.
    """
    wanted = os.environ.get("PORT", "")
    if wanted:
        if not wanted.isdigit() or not 0 < int(wanted) < 65536:
            raise processes.StartFailed(f"PORT must be a number from 1 to 65535, not {wanted!r}")
        if why := _refused(int(wanted)):
            raise processes.StartFailed(f"Port {wanted} (PORT) {why}")
        return int(wanted)
    port = next(port for port in range(DEFAULT_PORT, 65536) if not _refused(port))
    if port != DEFAULT_PORT:
        print(f"         port {DEFAULT_PORT} is taken: the web server takes {port} (PORT=… wishes another)", flush=True)
    return port


def stop_on_signals() -> None:
    """Turn Ctrl-C, SIGTERM and a closed terminal into ``Stopped``, once; later ones do not interrupt the stopping."""

    def stop(number: int, frame: FrameType | None) -> None:
        processes.interrupt(Stopped(signal.Signals(number).name))

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)


@contextmanager
def _undisturbed() -> Iterator[None]:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    yield


def _refused(port: int) -> str:
    """Why nothing of ours can listen at the port; empty when it can."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except PermissionError:
            return "is not allowed: ports below 1024 are for root; take one from 1024 on"
        except OSError:
            return "is taken: choose another one"
        return ""


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):  # noqa: S310 - our own address
            return True
    except (urllib.error.URLError, OSError):
        return False
