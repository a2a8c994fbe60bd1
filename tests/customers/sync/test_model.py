"""The proof of the engine: random interleavings, after which nothing may be lost, doubled or sent for nothing."""

from __future__ import annotations

import os
import random
import time

import pytest

from tests.customers.sync.conftest import Side
from tests.customers.sync.interleaver import Life
from tests.customers.sync.memory import MemoryIntegration, World

SEED = int(os.environ.get("SYNC_MODEL_SEED", "20260711"))
LIVES = int(os.environ.get("SYNC_MODEL_LIVES", "30"))
LONG_SECONDS = float(os.environ.get("SYNC_MODEL_SECONDS", "120"))


def live(side: Side, seed: int, *, steps: int) -> Life:
    MemoryIntegration.world = side.world = World()
    life = Life(seed=seed, side=side, steps=steps)
    life.run()
    life.check()
    return life


@pytest.mark.feature("G1", "G2", "G3", "G4", "C1")
@pytest.mark.django_db
def test_it_converges_and_loses_no_edit_in_any_interleaving(side: Side) -> None:
    """Short lives, as many everywhere and always the same; the long form below has new and longer ones."""
    for number in range(LIVES):
        live(side, SEED + number, steps=8)


@pytest.mark.feature("G2", "C1")
@pytest.mark.django_db
@pytest.mark.parametrize("seed", [20260754, 5002, 5011])
def test_it_comes_to_rest_after_a_life_that_ended_with_the_account_closed(side: Side, seed: int) -> None:
    """Three calls in a row without an answer close the account, here for longer than a test lasts."""
    live(side, seed, steps=30)


@pytest.mark.chaos
@pytest.mark.timeout(7200)
@pytest.mark.feature("G1", "G2", "G3", "G4", "C1")
@pytest.mark.django_db(transaction=True)
def test_it_converges_and_loses_no_edit_in_long_interleavings(side: Side, capsys: pytest.CaptureFixture[str]) -> None:
    """Long lives for as long as they may last, new ones every time; the seed of one that fails is in its message."""
    seed = int(os.environ.get("SYNC_MODEL_SEED", "0")) or random.SystemRandom().randrange(10**9)
    started, count = time.monotonic(), 0

    while time.monotonic() - started < LONG_SECONDS:
        live(side, seed + count, steps=30)
        count += 1

    with capsys.disabled():
        print(f"{count} lives of 30 steps in {time.monotonic() - started:.0f} s, from SYNC_MODEL_SEED={seed} on")
    assert count > 0
