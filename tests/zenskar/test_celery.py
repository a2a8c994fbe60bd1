from __future__ import annotations

import pytest

from operations.correlation import correlation_bound, correlation_id
from zenskar.celery import app

pytestmark = pytest.mark.feature("A13")


@app.task(name="tests.tell")
def tell() -> str:
    return correlation_id()


def test_it_gives_each_run_of_a_task_a_correlation_id() -> None:
    first, second = tell.apply().get(), tell.apply().get()

    assert len(first) == len(second) == 36
    assert first != second
    assert correlation_id() == ""


def test_it_keeps_the_id_of_the_work_that_calls_it() -> None:
    with correlation_bound("order-20"):
        assert tell() == "order-20"


def test_it_limits_every_task() -> None:
    assert app.conf.task_soft_time_limit < app.conf.task_time_limit <= 300
    assert app.conf.task_ignore_result
    assert app.conf.worker_prefetch_multiplier == 1
