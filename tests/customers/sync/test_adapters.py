"""The page on adapters says what is true: its class is run, against the engine that it is for."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from pytest_django import Settings

from customers import integrations
from customers.integrations import configured
from customers.models import SyncState
from customers.services import customer_create, customer_delete, customer_update
from customers.sync.engine import sync_once
from customers.sync.pokes import SyncPokes
from outbox.subscribers import Deadline
from tests.customers.sync.conftest import Side
from tests.customers.sync.memory import World

PAGE = Path(__file__).parents[3] / "docs" / "adapters.md"
pytestmark = [pytest.mark.feature("G6"), pytest.mark.django_db]


@pytest.fixture
def directory(settings: Settings) -> Iterator[Any]:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    module = ModuleType("page_on_adapters")
    vars(module).update({name: value for name, value in vars(integrations).items() if not name.startswith("__")})
    exec(code, vars(module))  # noqa: S102 - our own page
    sys.modules[module.__name__] = module
    settings.INTEGRATIONS = {
        "directory": "page_on_adapters.Directory",
        "memory": "tests.customers.sync.memory.MemoryIntegration",
    }
    configured._class_of.cache_clear()
    yield vars(module)["Directory"]
    del sys.modules[module.__name__]
    configured._class_of.cache_clear()


def settle(side: Side) -> None:
    SyncPokes().deliver(side.events(), Deadline.after(10))
    while dirty := side.dirty():
        for state in dirty:
            sync_once(state.pk)


def test_the_class_on_the_page_keeps_customers_the_same_beside_another(
    world: World, side: Side, directory: Any
) -> None:
    customer = customer_create(name="Ada", email="ada@example.com", phone="1")
    settle(side)
    customer_update(customer_id=customer.pk, changes={"name": "Ada L.", "email": None})
    settle(side)
    states = {state.integration: state for state in SyncState.objects.filter(customer=customer)}
    (record,) = directory.records.values()
    fields = dict(record.fields)
    customer_delete(customer_id=customer.pk)
    settle(side)

    assert {name: state.status for name, state in states.items()} == {"directory": "in_sync", "memory": "in_sync"}
    assert fields == {"name": "Ada L."}
    assert [one.deleted for one in directory.records.values()] == [True]
    assert world.living() == []
