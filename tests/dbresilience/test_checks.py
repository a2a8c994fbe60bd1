from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.core.checks import CheckMessage, Warning, registry
from django.db import connection, connections

from dbresilience.checks import pool_sum_check, pooler_check, settings_check
from tests.dbresilience.backends import pooled_alias
from tests.dbresilience.proxy import Proxy

pytestmark = [pytest.mark.feature("B1", "B2", "B11"), pytest.mark.usefixtures("transactional_db")]


@pytest.fixture
def known() -> Iterator[dict[str, Any]]:
    """The settings of the default alias, on our backend, as they are by default: without OPTIONS["pool"]."""
    with pooled_alias() as wrapper:
        wrapper.settings_dict["OPTIONS"].pop("pool")
        yield wrapper.settings_dict


def ids(messages: list[CheckMessage]) -> list[str | None]:
    assert all(message.hint for message in messages)
    return [message.id for message in messages]


def test_it_finds_nothing_in_the_defaults(known: dict[str, Any]) -> None:
    assert settings_check() == []
    assert pool_sum_check(databases=["default"]) == []
    assert pooler_check(databases=["default"]) == []


def test_it_is_registered() -> None:
    assert {settings_check, pool_sum_check, pooler_check} <= set(registry.registry.get_checks(True))


def test_it_names_a_setting_that_makes_no_sense(known: dict[str, Any], settings: Any) -> None:
    settings.DB_POOL_TIMEOUT = "soon"

    (message,) = settings_check()

    assert message.id == "dbresilience.E001"
    assert "DB_POOL_TIMEOUT must be a number" in message.msg


def test_it_names_an_option_of_the_pool_that_makes_no_sense(known: dict[str, Any]) -> None:
    known["OPTIONS"]["pool"] = {"timeout": "soon"}

    (message, *_) = settings_check()

    assert message.id == "dbresilience.E001"
    assert '["pool"]["timeout"] must be a number' in message.msg


@pytest.mark.parametrize(
    "changes",
    [
        {"DB_RETRY_BASE_DELAY": 6},
        {"DB_CONNECT_TIMEOUT": 40},
        {"DB_POOL_TIMEOUT": 10, "DB_CHECK_TIMEOUT": 10},
        {"DB_COMMAND_TIMEOUT": 3600},
        {"DB_COMMAND_TIMEOUT": 0},
        {"DB_LEAK_RECLAIM": 100},
        {"DB_LEAK_RECLAIM": 310, "DB_LEAK_WARNING": 400},
    ],
)
def test_it_finds_time_outs_in_the_wrong_order(known: dict[str, Any], settings: Any, changes: dict[str, float]) -> None:
    for name, value in changes.items():
        setattr(settings, name, value)

    messages = settings_check()

    assert ids(messages) == ["dbresilience.W003"]
    assert all(name in messages[0].msg for name in changes)


def test_it_finds_requests_that_can_never_be_retried(known: dict[str, Any]) -> None:
    known["ATOMIC_REQUESTS"] = True

    assert ids(settings_check()) == ["dbresilience.W004"]


def test_it_finds_connections_kept_per_thread(known: dict[str, Any]) -> None:
    known["CONN_MAX_AGE"] = 60

    assert ids(settings_check()) == ["dbresilience.E002"]


def test_it_finds_a_pool_that_celery_would_close(known: dict[str, Any]) -> None:
    known["OPTIONS"]["pool"] = {"max_size": 3}

    assert ids(settings_check()) == ["dbresilience.W005"]


def test_it_finds_what_is_not_safe_behind_pgbouncer(known: dict[str, Any], settings: Any) -> None:
    settings.DB_PGBOUNCER = True
    known["OPTIONS"] |= {"assume_role": "somebody", "prepare_threshold": 5}

    assert ids(settings_check()) == ["dbresilience.W006", "dbresilience.W007", "dbresilience.W007"]


def test_it_is_content_with_what_is_safe_behind_pgbouncer(known: dict[str, Any], settings: Any) -> None:
    settings.DB_PGBOUNCER = True
    known["DISABLE_SERVER_SIDE_CURSORS"] = True

    assert settings_check() == []


def test_it_adds_up_the_pools_of_all_processes(known: dict[str, Any], settings: Any) -> None:
    settings.DB_PROCESSES = 10

    messages = pool_sum_check(databases=["default"])

    assert ids(messages) == ["dbresilience.W001"]
    assert "10 processes with 50 connections each make 500" in messages[0].msg


def test_it_finds_a_pooler_that_nobody_spoke_of() -> None:
    settings = connection.settings_dict
    with (
        Proxy(settings["HOST"], int(settings["PORT"]), hide_backend=True) as proxy,
        pooled_alias(HOST="127.0.0.1", PORT=str(proxy.port)),
    ):
        messages = pooler_check(databases=["default"])

    assert ids(messages) == ["dbresilience.W002"]
    assert isinstance(messages[0], Warning)


def test_it_sends_no_session_settings_through_pgbouncer(settings: Any) -> None:
    settings.DB_PGBOUNCER = True

    with pooled_alias():
        parameters = connections["default"].get_connection_params()

    assert "statement_timeout" not in parameters.get("options", "")
