"""The proof of the engine: random interleavings, after which nothing may be lost, doubled or sent for nothing."""

from __future__ import annotations

import os
import time

import pytest

from tests.customers.sync.conftest import Side
from tests.customers.sync.interleaver import Life
from tests.customers.sync.memory import MemoryIntegration, World

SEED = int(os.environ.get("SYNC_MODEL_SEED", "20260711"))
LIVES = int(os.environ.get("SYNC_MODEL_LIVES", "300"))
SECONDS = float(os.environ.get("SYNC_MODEL_SECONDS", "12"))


def live(side: Side, seed: int, *, steps: int) -> Life:
    MemoryIntegration.world = side.world = World()
    life = Life(seed=seed, side=side, steps=steps)
    life.run()
    life.check()
    return life


@pytest.mark.feature("G1", "G2", "G3", "G4", "C1")
@pytest.mark.django_db
def test_it_converges_and_loses_no_edit_in_any_interleaving(side: Side) -> None:
    """Short lives, always the same; a slow machine lives fewer of them."""
    started, count = time.monotonic(), 0

    while count < LIVES and (count < 12 or time.monotonic() - started < SECONDS):
        live(side, SEED + count, steps=8)
        count += 1

    print(f"{count} lives in {time.monotonic() - started:.1f} s")


@pytest.mark.chaos
@pytest.mark.timeout(7200)
@pytest.mark.feature("G1", "G2", "G3", "G4", "C1")
@pytest.mark.django_db(transaction=True)
def test_it_converges_and_loses_no_edit_in_thousands_of_long_interleavings(side: Side) -> None:
    for number in range(int(os.environ.get("SYNC_MODEL_LIVES", "1000"))):
        live(side, SEED + number, steps=30)
