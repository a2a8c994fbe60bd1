from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import LazySettings
from django.db import connection, transaction

from outbox.events import NewEvent
from outbox.publishing import publish_many
from projections.models import Build
from tests.operations.conftest import staff_client  # noqa: F401 - a fixture
from tests.projections.cleaning import builds_drop
from tests.projections.models_of_tests import SHAPES, UNSHAPES, Totals

Rows = dict[str, tuple[int, int]]


@pytest.fixture
def shapes(transactional_db: None) -> Iterator[None]:
    with connection.cursor() as cursor:
        cursor.execute(SHAPES)
    yield
    Totals.before = staticmethod(lambda batch: None)
    builds_drop("test_totals", "test_days")
    with connection.cursor() as cursor:
        cursor.execute(UNSHAPES)


@pytest.fixture
def totals(shapes: None, settings: LazySettings) -> type[Totals]:
    """The only projection."""
    settings.PROJECTIONS = ["tests.projections.models_of_tests.Totals"]
    return Totals


@pytest.fixture
def both(shapes: None, settings: LazySettings) -> None:
    settings.PROJECTIONS = ["tests.projections.models_of_tests.Totals", "tests.projections.models_of_tests.Days"]


def deposit(account: str, amount: int = 1, **changes: Any) -> NewEvent:
    payload = changes.pop("payload", {"amount": amount})
    values: dict[str, Any] = {"topic": "accounts", "type": "deposited", "aggregate_type": "account", **changes}
    return NewEvent(aggregate_id=account, payload=payload, **values)


def publish_deposits(*events: NewEvent | str) -> list[int]:
    with transaction.atomic():
        return publish_many([deposit(event) if isinstance(event, str) else event for event in events])


def accounts() -> Rows:
    """What readers see."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT account, total, last_sequence FROM test_totals ORDER BY account")
        return {row[0]: (row[1], row[2]) for row in cursor.fetchall()}


def live(name: str = "totals") -> Build:
    return Build.objects.get(projection=name, state="live")
