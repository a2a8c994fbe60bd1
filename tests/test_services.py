"""What the tests are given to run on."""

from __future__ import annotations

import os

import pytest

from tests.services import broker_asked

pytestmark = pytest.mark.feature("A15")


def test_a_broker_that_is_gone_is_told_at_once() -> None:
    with pytest.raises(pytest.UsageError, match=r"at 127\.0\.0\.1:1, which KAFKA_BOOTSTRAP_SERVERS .* Unset it"):
        broker_asked("127.0.0.1:1", seconds=0.1)


def test_a_broker_that_answers_is_taken() -> None:
    broker_asked(os.environ["KAFKA_BOOTSTRAP_SERVERS"], seconds=60)
