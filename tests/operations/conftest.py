from __future__ import annotations

from collections.abc import Callable

import pytest
from django.contrib.auth.models import Group, User
from django.test import Client

from operations.keys import IssuedKey, apikey_create
from operations.scopes import Scope

MakeClient = Callable[..., Client]


@pytest.fixture
def issued(db: None) -> IssuedKey:
    """A key with every scope."""
    return apikey_create(name="tests", scopes=Scope.values)


@pytest.fixture
def api(issued: IssuedKey) -> Client:
    """A client that sends that key."""
    return Client(headers={"Authorization": issued.authorization})


@pytest.fixture
def staff_client(db: None) -> MakeClient:
    """Makes a client that is logged in as a member of staff with the roles named."""

    def make(*roles: str, is_staff: bool = True, is_superuser: bool = False) -> Client:
        user = User.objects.create(username="-".join(roles) or "ann", is_staff=is_staff, is_superuser=is_superuser)
        user.groups.set(Group.objects.filter(name__in=roles))
        client = Client()
        client.force_login(user)
        return client

    return make
