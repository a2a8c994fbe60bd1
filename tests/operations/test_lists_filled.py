"""The lists of the console on rows of every kind, as ``benchmarks/console`` fills them for millions."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client

from benchmarks.console.fill import FILL_SQL
from benchmarks.console.pages import measure, pages
from outbox.subscriptions import subscriptions_ensure

pytestmark = [pytest.mark.django_db, pytest.mark.feature("F3")]


def test_it_shows_every_list_filter_search_and_record(client: Client) -> None:
    subscriptions_ensure()
    with connection.cursor() as cursor:
        for statement in FILL_SQL.values():
            cursor.execute(statement, {"rows": 600})
    client.force_login(User.objects.create_superuser("boss"))

    seen = list(pages(client))
    for page in seen:
        measure(client, page)

    assert len({page.list for page in seen}) == 10
    assert all(page.seconds for page in seen)
