from __future__ import annotations

import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.core.management import get_commands

from dbresilience.conf import pool_settings
from zenskar import web

ROOT = Path(__file__).resolve().parent.parent.parent
OURS = ("web", "worker", "beat", "relay", "consumer", "migrate", "stripe")
THEIRS = ("postgres", "redis", "kafka")

pytestmark = pytest.mark.feature("A14")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return document


@pytest.fixture(scope="module")
def services(compose: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = compose["services"]
    return found


def _words(command: str | list[str]) -> list[str]:
    return shlex.split(command) if isinstance(command, str) else command


def test_it_has_every_part_and_no_other(services: dict[str, Any]) -> None:
    assert sorted(services) == sorted([*OURS, *THEIRS])


@pytest.mark.parametrize("name", [name for name in (*OURS, *THEIRS) if name != "migrate"])
def test_it_checks_the_health_of_each_service(services: dict[str, Any], name: str) -> None:
    check = services[name]["healthcheck"]

    assert check["test"][0] == "CMD"
    assert {"interval", "timeout", "retries"} <= check.keys()


@pytest.mark.parametrize("name", ["web", "worker", "beat", "relay", "consumer"])
def test_it_waits_for_healthy_servers_and_a_migrated_database(services: dict[str, Any], name: str) -> None:
    conditions = {other: needed["condition"] for other, needed in services[name]["depends_on"].items()}

    assert conditions == {
        "migrate": "service_completed_successfully",
        "postgres": "service_healthy",
        "redis": "service_healthy",
        "kafka": "service_healthy",
        "stripe": "service_healthy",
    }


def test_it_builds_the_image_once_and_looks_for_it_nowhere_else(services: dict[str, Any]) -> None:
    built = [name for name in OURS if "build" in services[name]]
    policies = {name: services[name]["pull_policy"] for name in OURS}

    assert built == ["migrate"]
    assert {services[name]["image"] for name in OURS} == {"zenskar"}
    assert policies == {name: "build" if name == "migrate" else "never" for name in OURS}


def _commands(services: dict[str, Any]) -> Iterator[list[str]]:
    for name in OURS:
        service = services[name]
        if "command" in service:
            yield _words(service["command"])
        if "test" in service.get("healthcheck", {}):
            yield service["healthcheck"]["test"][1:]


def test_every_command_exists(services: dict[str, Any]) -> None:
    unknown = []

    for words in _commands(services):
        match words:
            case ["python", "-m", module, *_]:
                known = importlib.util.find_spec(module) is not None
            case ["python", "manage.py", command, *_]:
                known = command in get_commands()
            case ["celery", "-A", application, "worker" | "beat", *_]:
                known = importlib.util.find_spec(application) is not None
            case ["python", "-c", program]:
                known = compile(program, "healthcheck", "exec") is not None
            case _:
                known = False
        if not known:
            unknown.append(words)

    assert unknown == []


def test_every_variable_is_read_by_the_product(services: dict[str, Any]) -> None:
    source = "\n".join(
        path.read_text()
        for folder in ("zenskar", "customers", "outbox", "operations", "dbresilience")
        for path in (ROOT / folder).rglob("*.py")
        if "sandbox" not in path.parts
    )

    unread = {variable for name in OURS for variable in services[name]["environment"] if f'"{variable}"' not in source}

    assert unread == set()


def test_the_stripe_sandbox_takes_the_options_that_it_is_given(services: dict[str, Any]) -> None:
    from zenskar.sandbox.stripe.__main__ import _parser

    options = _parser().parse_args(_words(services["stripe"]["command"])[3:])

    assert options.exposed
    assert options.webhook_url == "http://web:8000/webhooks/stripe"


def test_it_opens_ports_to_this_machine_alone(services: dict[str, Any]) -> None:
    ports = [port for service in services.values() for port in service.get("ports", [])]

    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_its_volumes_are_declared(compose: dict[str, Any], services: dict[str, Any]) -> None:
    used = {volume.partition(":")[0] for service in services.values() for volume in service.get("volumes", [])}

    assert used == set(compose["volumes"])


def test_its_secrets_say_that_they_are_for_development(services: dict[str, Any]) -> None:
    secret = re.compile(r"SECRET|PASSWORD|API_KEY$")
    values = [
        value
        for service in services.values()
        for name, value in service.get("environment", {}).items()
        if secret.search(name)
    ]

    assert values
    assert all("development" in value for value in values)


def test_the_image_runs_as_nobody_special_and_holds_no_secret() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    instructions = [line.split(maxsplit=1) for line in lines if re.match(r"[A-Z]+ ", line)]

    assert [rest for word, rest in instructions if word == "USER"] == ["zenskar"]
    assert [rest.partition(" ")[0] for word, rest in instructions if word == "FROM"] == ["python:3.12-slim"] * 2
    assert "HEALTHCHECK" in {word for word, _ in instructions}
    assert not re.search(r"SECRET|PASSWORD|sk_|whsec_", "\n".join(lines))


def test_the_image_gets_every_app_and_nothing_that_a_checkout_gathers() -> None:
    from django.conf import settings

    copied = set(re.findall(r"^COPY (\w[\w.]*) ", (ROOT / "Dockerfile").read_text(), re.MULTILINE))
    sent = set(re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE))
    ours = {app.partition(".")[0] for app in settings.INSTALLED_APPS if (ROOT / app.partition(".")[0]).is_dir()}

    assert copied == sent
    assert ours | {"zenskar", "manage.py"} <= copied


def test_the_image_starts_the_web_process_with_the_settings_that_are_in_it() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()

    command = next(line for line in lines if line.startswith("CMD "))

    assert command == 'CMD ["python", "-m", "zenskar.web"]'
    assert web.SETTINGS.is_file()
    assert web.SETTINGS.parent == ROOT / "zenskar"
    assert "COPY zenskar zenskar" in lines


@pytest.mark.feature("B11")
def test_its_server_admits_the_pools_of_all_its_processes(services: dict[str, Any]) -> None:
    config = pool_settings()
    (admitted,) = re.findall(r"max_connections=(\d+)", services["postgres"]["command"])
    reserved = 3

    assert config.processes * (config.size + config.max_overflow) <= int(admitted) - reserved
