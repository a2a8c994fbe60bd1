from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.db import connection

from tests.dbresilience.backends import other_session, pooled_alias
from tests.dbresilience.proxy import Proxy


@pytest.fixture
def accounts(transactional_db: None) -> Iterator[str]:
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


@pytest.fixture
def ledger(transactional_db: None) -> Iterator[None]:
    """A table of entries, dropped afterwards."""
    with other_session() as session:
        session.execute("CREATE TABLE ledger (entry int)")
    yield
    with other_session() as session:
        session.execute("DROP TABLE ledger")


@pytest.fixture
def proxy(ledger: None) -> Iterator[Proxy]:
    """What the default alias, on our backend, goes through to its server."""
    settings = connection.settings_dict
    with (
        Proxy(settings["HOST"], int(settings["PORT"])) as proxy,
        pooled_alias(HOST="127.0.0.1", PORT=str(proxy.port)),
    ):
        yield proxy
