from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.db import connection
from pytest_django.plugin import DjangoDbBlocker


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # pytest-django makes a test database only when some test says that it wants one.
    for item in items:
        if "unflushed_db" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.django_db(transaction=True))


@pytest.fixture(autouse=True)
def _django_db_marker(request: pytest.FixtureRequest) -> None:
    """In place of pytest-django's, which would empty all tables after each test of that mark."""
    if "unflushed_db" not in request.fixturenames and request.node.get_closest_marker("django_db"):
        request.getfixturevalue("_django_db_helper")


@pytest.fixture
def unflushed_db(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    """The test database, for tests that write no row of the product: emptying all its tables takes a second."""
    with django_db_blocker.unblock():
        yield


@pytest.fixture
def accounts(unflushed_db: None) -> Iterator[str]:
    """A table of two accounts with every class of constraint, dropped afterwards."""
    with connection.cursor() as cursor:
        cursor.execute("CREATE EXTENSION IF NOT EXISTS btree_gist")
        cursor.execute(
            """
            CREATE TABLE bank (id int PRIMARY KEY);
            CREATE TABLE account (
              id int PRIMARY KEY, owner text NOT NULL, email text, balance int CONSTRAINT account_balance_positive CHECK
              (balance >= 0), bank_id int CONSTRAINT account_bank REFERENCES bank DEFERRABLE INITIALLY DEFERRED,
              during int4range, CONSTRAINT account_during_excl EXCLUDE USING gist (owner WITH =, during WITH &&),
              deleted boolean NOT NULL DEFAULT false);
            CREATE UNIQUE INDEX account_email_uniq ON account (lower(email)) WHERE NOT deleted;
            INSERT INTO account (id, owner, email, balance) VALUES
              (1, 'Ann', 'ann@example.com', 100), (2, 'Bob', NULL, 100)
            """
        )
    yield "account"
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE account, bank")
