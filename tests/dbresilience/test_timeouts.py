from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.db import OperationalError, connection, transaction

from dbresilience.timeouts import without_command_timeout
from tests.dbresilience.backends import in_threads, one, pooled_alias

pytestmark = [pytest.mark.feature("B1", "B11"), pytest.mark.usefixtures("transactional_db")]

LONGER = "SELECT 1 FROM pg_sleep(0.4)"


@pytest.fixture(autouse=True)
def short_limit(settings: object) -> Iterator[None]:
    settings.DB_COMMAND_TIMEOUT = 0.15  # type: ignore[attr-defined]
    with pooled_alias():
        yield


def test_it_lifts_the_time_out_for_maintenance_and_no_longer() -> None:
    with without_command_timeout():
        assert one(LONGER) == 1

    with pytest.raises(OperationalError, match="statement timeout"):
        one(LONGER)


def test_it_lifts_the_time_out_within_a_transaction_and_no_longer() -> None:
    with transaction.atomic(), without_command_timeout():
        assert one(LONGER) == 1

    with pytest.raises(OperationalError, match="statement timeout"):
        one(LONGER)


def test_it_puts_the_time_out_back_after_a_failure_too() -> None:
    with pytest.raises(ZeroDivisionError), without_command_timeout():
        raise ZeroDivisionError

    with pytest.raises(OperationalError, match="statement timeout"):
        one(LONGER)


@pytest.mark.parametrize("atomic", [True, False])
def test_it_lets_a_migration_take_its_time(atomic: bool) -> None:
    with connection.schema_editor(atomic=atomic) as editor:
        editor.execute("SELECT pg_sleep(0.4)")

    with pytest.raises(OperationalError, match="statement timeout"):
        one(LONGER)


def test_it_gives_nobody_else_a_session_without_a_time_out() -> None:
    seen: list[object] = []

    with without_command_timeout():
        lifted = one("SELECT pg_backend_pid()")
        connection.close()
        errors = in_threads(1, lambda _: seen.extend((one("SELECT pg_backend_pid()"), one("SHOW statement_timeout"))))

    assert not errors
    assert seen[0] != lifted
    assert seen[1] == "150ms"
    with pytest.raises(OperationalError, match="statement timeout"):
        one(LONGER)


def test_it_closes_a_session_whose_time_out_it_could_not_put_back() -> None:
    with without_command_timeout():
        lifted = one("SELECT pg_backend_pid()")
        with connection.cursor() as cursor:
            cursor.execute("BEGIN")
    connection.close()

    assert one("SELECT pg_backend_pid()") != lifted
    assert one("SHOW statement_timeout") == "150ms"


def test_it_exchanges_no_session_whose_time_out_is_lifted() -> None:
    with without_command_timeout():
        before = one("SELECT pg_backend_pid()")
        connection._refresh_at = 0.0  # type: ignore[attr-defined]
        after = one("SELECT pg_backend_pid()")

    assert before == after
