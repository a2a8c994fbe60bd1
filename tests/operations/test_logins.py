from __future__ import annotations

import datetime as dt
import threading
from typing import Any

import pytest
from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import User
from django.db import connection
from django.http import HttpResponse
from django.test import Client
from django.utils import timezone

from operations.logins import login_attempt, login_attempts_forget
from operations.models import AuditEntry, LoginAttempts

pytestmark = [pytest.mark.django_db, pytest.mark.feature("A16")]

PASSWORD = "correct-horse-battery"


@pytest.fixture(autouse=True)
def _quick(settings: Any) -> None:
    settings.LOGIN_ATTEMPTS = 3


@pytest.fixture
def ann(_quick: None) -> User:
    return User.objects.create(username="ann", password=make_password(PASSWORD), is_staff=True)


def log_in(password: str, name: str = "ann", address: str = "10.0.0.1") -> HttpResponse:
    data = {"username": name, "password": password}
    return Client(REMOTE_ADDR=address).post("/admin/login/", data)


def test_it_lets_staff_in_and_audits_it(ann: User) -> None:
    client = Client(REMOTE_ADDR="10.0.0.1")

    response = client.post("/admin/login/", {"username": "ann", "password": PASSWORD})
    client.post("/admin/logout/")

    assert response.status_code == 302
    entries = list(AuditEntry.objects.order_by("pk").values_list("actor", "action", "detail"))
    assert entries == [
        ("user:ann", "session.opened", {"from": "10.0.0.1"}),
        ("user:ann", "session.closed", {"from": "10.0.0.1"}),
    ]


def test_it_stops_guessing(ann: User) -> None:
    wrong = [log_in("guess").status_code for _ in range(3)]

    blocked = log_in(PASSWORD)

    assert wrong == [200, 200, 200]
    assert blocked.status_code == 429
    assert 0 < int(blocked["Retry-After"]) <= 900
    assert "Too many attempts" in blocked.content.decode()


def test_it_stops_guessing_whatever_the_spelling_of_the_name(ann: User) -> None:
    for name in ("ann", "ANN", "Ann"):
        log_in("guess", name=name)

    assert log_in(PASSWORD, name="aNn").status_code == 429


def test_it_locks_nobody_out_from_elsewhere(ann: User) -> None:
    for _ in range(4):
        log_in("guess")

    assert log_in(PASSWORD, address="10.0.0.2").status_code == 302


def test_it_stops_an_address_that_tries_many_names() -> None:
    waits = [login_attempt(address="10.0.0.1", name=f"name-{number}") for number in range(31)]

    assert waits[:30] == [0] * 30
    assert waits[30] > 0


def test_it_takes_an_ipv6_network_for_one_address() -> None:
    for number in range(3):
        login_attempt(address=f"2001:db8::{number}", name="ann")

    assert login_attempt(address="2001:db8::ffff", name="ann") > 0
    assert login_attempt(address="2001:db8:0:1::1", name="ann") == 0


def test_it_starts_anew_after_the_window() -> None:
    for _ in range(4):
        login_attempt(address="10.0.0.1", name="ann")

    LoginAttempts.objects.update(window_ends_at=timezone.now() - dt.timedelta(seconds=1))

    assert login_attempt(address="10.0.0.1", name="ann") == 0


def test_it_forgets_windows_that_are_over() -> None:
    for number in range(5):
        login_attempt(address=f"10.0.1.{number}", name="ann")
    LoginAttempts.objects.update(window_ends_at=timezone.now() - dt.timedelta(seconds=1))

    login_attempt(address="10.0.0.1", name="bob")

    assert LoginAttempts.objects.count() == 2


def test_it_starts_anew_after_a_success(ann: User) -> None:
    log_in("guess")
    log_in("guess")

    log_in(PASSWORD)

    assert [log_in("guess").status_code for _ in range(3)] == [200, 200, 200]


@pytest.mark.django_db(transaction=True)
def test_it_counts_attempts_that_arrive_together() -> None:
    barrier = threading.Barrier(8)
    waits: list[int] = []

    def attempt() -> None:
        try:
            barrier.wait(timeout=60)
            waits.append(login_attempt(address="10.0.0.1", name="ann"))
        finally:
            connection.close()

    threads = [threading.Thread(target=attempt) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)

    assert sorted(wait > 0 for wait in waits) == [False] * 3 + [True] * 5
    login_attempts_forget(address="10.0.0.1", name="ann")
    assert LoginAttempts.objects.count() == 1


def test_it_believes_forwarded_addresses_of_its_own_proxies_alone(settings: Any, ann: User) -> None:
    forwarded = {"X-Forwarded-For": "6.6.6.6, 10.9.9.9"}
    client = Client(REMOTE_ADDR="10.0.0.1", headers=forwarded)

    client.post("/admin/login/", {"username": "ann", "password": PASSWORD})
    settings.TRUSTED_PROXIES = 1
    client.post("/admin/login/", {"username": "ann", "password": PASSWORD})

    assert [entry.detail["from"] for entry in AuditEntry.objects.order_by("pk")] == ["10.0.0.1", "10.9.9.9"]


@pytest.mark.parametrize("target", ["https://elsewhere.example/", "//elsewhere.example", "", "javascript:alert(1)"])
def test_it_leads_to_the_console_when_the_wanted_page_is_refused(ann: User, target: str) -> None:
    data = {"username": "ann", "password": PASSWORD, "next": target}

    response = Client().post("/admin/login/", data)

    assert (response.status_code, response["Location"]) == (302, "/admin/")
