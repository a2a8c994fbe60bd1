from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import connection

from operations.long_actions import kinds
from operations.long_actions.planning import Pace, operation_create
from operations.long_actions.steering import operation_start
from operations.models import Operation
from tests.operations.long_actions.acting import TABLE_SQL, Acting, ActingOnce, ActingOutside, HandingOver

Started = Callable[..., Operation]


@pytest.fixture
def tables(transactional_db: None) -> Iterator[None]:
    with connection.cursor() as cursor:
        cursor.execute(TABLE_SQL)
    yield
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE acted, numbers")


def registered(kind: Any) -> Iterator[Any]:
    kinds.register(kind)
    yield kind
    kinds.unregister(kind.name)


@pytest.fixture
def acting(tables: None) -> Iterator[Acting]:
    yield from registered(Acting())


@pytest.fixture
def outside(tables: None) -> Iterator[ActingOutside]:
    yield from registered(ActingOutside())


@pytest.fixture
def once(tables: None) -> Iterator[ActingOnce]:
    yield from registered(ActingOnce())


@pytest.fixture
def handing(tables: None) -> Iterator[HandingOver]:
    yield from registered(HandingOver())


def planned(kind: str = Acting.name, up_to: int = 10, **pace: Any) -> Operation:
    return operation_create(
        kind=kind, filter={"up_to": up_to}, reason="because of the outage", actor="user:ann", pace=Pace(**pace)
    )


def started(kind: str = Acting.name, up_to: int = 10, **pace: Any) -> Operation:
    return operation_start(operation_id=planned(kind, up_to, **pace).pk, actor="user:ann")
