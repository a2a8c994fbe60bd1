"""How long a session waits for a lock: not long where somebody waits for the answer."""

from __future__ import annotations

import pytest
from django.conf import LazySettings
from django.db import OperationalError, transaction

from dbresilience import work
from dbresilience.sqlstate import LOCK_NOT_AVAILABLE, sqlstate_of
from tests.dbresilience.backends import one, other_session, pooled_alias

pytestmark = [pytest.mark.feature("B1", "B11"), pytest.mark.usefixtures("transactional_db")]


@pytest.fixture
def serving(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "_serving", [])
    work.serve_requests()


@pytest.mark.parametrize("pool", [True, False])
@pytest.mark.parametrize(("seconds", "shown"), [(None, "5s"), (0.25, "250ms"), (0, "0")])
def test_it_bounds_the_wait_for_a_lock_where_requests_are_served(
    serving: None, settings: LazySettings, pool: bool, seconds: float | None, shown: str
) -> None:
    if seconds is not None:
        settings.DB_LOCK_TIMEOUT = seconds

    with pooled_alias(pool=pool):
        assert one("SHOW lock_timeout") == shown
        assert one("SHOW statement_timeout") == "5min"


def test_it_lets_tasks_relays_and_commands_wait() -> None:
    with pooled_alias():
        assert one("SHOW lock_timeout") == "0"


def test_it_gives_up_on_a_lock_and_can_go_on(serving: None, settings: LazySettings) -> None:
    settings.DB_LOCK_TIMEOUT = 0.1

    with other_session() as holder, pooled_alias():
        holder.execute("SELECT pg_advisory_lock(4711)")
        with pytest.raises(OperationalError) as refused, transaction.atomic():
            one("SELECT pg_advisory_xact_lock(4711)::text")
        holder.execute("SELECT pg_advisory_unlock(4711)")
        with transaction.atomic():
            granted = one("SELECT pg_advisory_xact_lock(4711)::text")

    assert sqlstate_of(refused.value) == LOCK_NOT_AVAILABLE
    assert granted == ""
