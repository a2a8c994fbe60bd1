from __future__ import annotations

import pytest
from celery.fixups.django import DjangoWorkerFixup
from celery.worker import WorkController

from tests.dbresilience.backends import fill, one, pool_of, pooled_alias
from zenskar.celery import app

pytestmark = [pytest.mark.feature("A3", "B2"), pytest.mark.usefixtures("transactional_db")]


def test_it_keeps_the_pool_over_celerys_tasks() -> None:
    """Celery's own fix-up, as a prefork child runs it before and after each task."""
    fixup = DjangoWorkerFixup(app)
    fixup.worker = WorkController.__new__(WorkController)
    fixup.worker.pool_cls = "prefork"

    with pooled_alias() as wrapper:
        wrapper.settings_dict["OPTIONS"].pop("pool")
        backends = set()
        for _ in range(10):
            fixup.close_database()
            backends.add(one("SELECT pg_backend_pid()"))
            fixup.close_database()
            assert wrapper.connection is None
        stats = pool_of(wrapper).stats()

    assert len(backends) == 1
    assert (stats.open, stats.borrowed, stats.requests) == (1, 0, 10)


def test_it_gives_the_connection_back_and_undoes_what_was_left_open() -> None:
    with pooled_alias() as wrapper:
        fill(wrapper, 1)
        wrapper.ensure_connection()
        wrapper.set_autocommit(False)
        one("SELECT pg_current_xact_id()::text")
        wrapper.close()

        assert one("SELECT pg_current_xact_id_if_assigned()::text") is None
