"""The proofs of tests/dbresilience in full, on whichever PostgreSQL ``SANDBOX_POSTGRES`` names.

``CHAOS_SEED`` replays a run; ``CHAOS_SECONDS`` bounds the proof that takes longest (60 by default).
"""

from __future__ import annotations

import os
import random
import tempfile
from pathlib import Path

import pytest
from django.db import connection

from dbresilience.transactions import run_in_transaction
from tests.dbresilience import loads
from tests.dbresilience.backends import in_threads, one, other_session, pooled_alias
from tests.dbresilience.proxy import Proxy
from tests.dbresilience.test_forking import in_child, use_five

pytestmark = [pytest.mark.chaos, pytest.mark.feature("A15"), pytest.mark.usefixtures("transactional_db")]

SEED = int(os.environ.get("CHAOS_SEED", "20251"))
SECONDS = min(60.0, float(os.environ.get("CHAOS_SECONDS", "60")))


@pytest.mark.feature("B1", "B2")
def test_it_survives_ten_terminations_a_second_for_a_minute() -> None:
    with pooled_alias():
        requests, terminated = loads.under_terminations(SEED, seconds=SECONDS, a_second=10, threads=16)

    assert terminated >= 5 * SECONDS
    assert len(requests.failures) <= terminated


@pytest.mark.feature("A2", "B1")
def test_it_serves_no_dead_connection_however_often_all_are_terminated() -> None:
    with pooled_alias() as wrapper:
        assert max(loads.all_terminated(wrapper) for _ in range(10)) < 1


@pytest.mark.feature("B1")
def test_it_ends_every_transaction_by_its_deadline_behind_a_silent_peer(settings: object) -> None:
    settings.DB_POOL_TIMEOUT = 2  # type: ignore[attr-defined]
    known = connection.settings_dict
    for deadline in (0.5, 1, 2, 4):
        with (
            Proxy(known["HOST"], int(known["PORT"])) as proxy,
            pooled_alias(HOST="127.0.0.1", PORT=str(proxy.port)) as wrapper,
        ):
            assert loads.silent_peer(proxy, wrapper, threads=32, deadline=deadline) < deadline + 0.5


@pytest.mark.feature("B1")
def test_it_is_back_within_a_second_of_the_server() -> None:
    # Not one of pytest's folders: another run closes those to nobody, as whom the server may run.
    folder = Path(tempfile.mkdtemp(prefix="zenskar-test-"))
    folder.chmod(0o755)

    assert loads.under_restarts(folder, restarts=5, threads=16, down=3) < 1


@pytest.mark.feature("A2", "B2")
def test_it_serves_200_threads() -> None:
    with pooled_alias() as wrapper:
        ends = loads.exhausted(wrapper, threads=200, hold=0.3)

    assert ends == {"served": 200}


@pytest.mark.feature("A2", "B2")
def test_it_refuses_cleanly_whom_it_cannot_serve(settings: object) -> None:
    settings.DB_POOL_TIMEOUT = 1  # type: ignore[attr-defined]

    with pooled_alias() as wrapper:
        ends = loads.exhausted(wrapper, threads=200, hold=0.8)

    assert ends["served"] >= 50
    assert ends["refused"] > 0


@pytest.mark.feature("A6", "B6")
def test_it_brings_16_deadlocking_threads_through() -> None:
    with pooled_alias():
        assert loads.reversed_locks(SEED, threads=16, rounds=10, purses=6, hold=0.005) <= 5


@pytest.mark.feature("A4", "B7")
def test_it_lets_no_write_skew_through() -> None:
    with pooled_alias():
        assert loads.write_skew(SEED, rounds=100) == 0


@pytest.mark.feature("A4", "B4")
def test_it_writes_each_row_once_when_answers_to_commit_are_lost() -> None:
    chance = random.Random(SEED)
    known = connection.settings_dict
    with other_session() as session:
        session.execute("CREATE TABLE ledger (entry int)")
    with (
        Proxy(known["HOST"], int(known["PORT"])) as proxy,
        pooled_alias(HOST="127.0.0.1", PORT=str(proxy.port)),
    ):
        for entry in range(200):
            proxy.lose_commits = int(chance.random() < 0.3)
            run_in_transaction(lambda entry=entry: one(f"INSERT INTO ledger VALUES ({entry}) RETURNING entry"))
        lost = proxy.lost
    with other_session() as session:
        rows = [row[0] for row in session.execute("SELECT entry FROM ledger ORDER BY entry").fetchall()]
        session.execute("DROP TABLE ledger")

    print(f"seed {SEED}: 200 transactions, {lost} answers to COMMIT lost, {len(rows)} rows")
    assert lost > 30
    assert rows == list(range(200))


@pytest.mark.feature("B2")
def test_it_forks_under_load() -> None:
    with pooled_alias() as wrapper:
        use_five(wrapper)
        children: list[set[int]] = []

        def work(number: int) -> None:
            if number:
                for _ in range(200):
                    one("SELECT 1")
            else:
                children.extend(set(in_child(lambda: use_five(wrapper))) for _ in range(20))

        errors = in_threads(5, work, seconds=100)
        parents = set(use_five(wrapper))

    print(f"20 forks under 4 threads' load: {len(children)} children answered, 0 hangs")
    assert errors == []
    assert len(children) == 20
    assert all(not child & parents for child in children)
