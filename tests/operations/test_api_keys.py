from __future__ import annotations

import datetime as dt
import json
import threading
from typing import Any

import pytest
from django.db import connection, transaction
from django.http import HttpResponse
from django.test import Client
from django.utils import timezone

from operations.keys import ApiKeyRefused, IssuedKey, apikey_create, apikey_revoke, apikey_rotate
from operations.models import ApiKey, AuditEntry
from tests.operations.conftest import MakeClient

pytestmark = [pytest.mark.django_db, pytest.mark.urls("tests.operations.probe_urls"), pytest.mark.feature("A16")]


def get(authorization: str | None = None, address: str = "/api/probe") -> HttpResponse:
    return Client(headers={"Authorization": authorization} if authorization is not None else {}).get(address)


def code_of(response: HttpResponse) -> tuple[int, str]:
    document: dict[str, Any] = json.loads(response.content)
    return response.status_code, document["code"]


def test_it_opens_with_a_key(issued: IssuedKey) -> None:
    response = get(issued.authorization)

    assert response.status_code == 200
    assert json.loads(response.content) == {"user": f"key:{issued.key.prefix}"}


def test_it_stores_no_key(issued: IssuedKey) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT k::text FROM operations_apikey k UNION ALL SELECT a::text FROM operations_auditentry a")
        rows = " ".join(text for (text,) in cursor.fetchall())

    assert issued.key.prefix in rows
    assert issued.token.rpartition("_")[2] not in rows
    assert issued.token not in repr(issued)


def test_it_refuses_strangers() -> None:
    response = get()

    assert code_of(response) == (401, "not_authenticated")
    assert response["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize(
    "authorization",
    [
        "Bearer",
        "Bearer ",
        "Bearer zk_x_y",
        "Basic YTpi",
        "Bearer zk_000000000000_" + "0" * 43,
        "Bearer \xff",
        "x" * 9000,
    ],
)
def test_it_refuses_what_is_no_key(db: None, authorization: str) -> None:
    response = get(authorization)

    assert code_of(response) == (401, "credentials_refused")
    assert response["WWW-Authenticate"].startswith("Bearer")


def test_it_refuses_a_wrong_secret(issued: IssuedKey) -> None:
    last = "a" if issued.token[-1] != "a" else "b"

    response = get(f"Bearer {issued.token[:-1]}{last}")

    assert code_of(response) == (401, "credentials_refused")


def test_it_refuses_an_expired_key(issued: IssuedKey) -> None:
    ApiKey.objects.update(expires_at=timezone.now())

    response = get(issued.authorization)

    assert code_of(response) == (401, "credentials_refused")


def test_it_refuses_a_revoked_key_at_once(issued: IssuedKey) -> None:
    before = get(issued.authorization)

    apikey_revoke(prefix=issued.key.prefix)

    assert before.status_code == 200
    assert code_of(get(issued.authorization)) == (401, "credentials_refused")


def test_it_asks_for_the_scope_of_the_method() -> None:
    reader = apikey_create(name="reader", scopes=["customers:read"])
    writer = apikey_create(name="writer", scopes=["customers:write"])
    body = {"data": b'{"name": "a"}', "content_type": "application/json"}

    refused = Client(headers={"Authorization": reader.authorization}).post("/api/probe", **body)
    taken = Client(headers={"Authorization": writer.authorization}).post("/api/probe", **body)

    assert code_of(refused) == (403, "insufficient_scope")
    assert 'scope="customers:write"' in refused["WWW-Authenticate"]
    assert taken.status_code == 200
    assert code_of(get(writer.authorization)) == (403, "insufficient_scope")


def test_it_opens_no_view_that_names_no_scope(issued: IssuedKey) -> None:
    response = get(issued.authorization, "/api/unscoped")

    assert code_of(response) == (403, "insufficient_scope")


def test_it_gives_staff_the_scopes_of_their_role(staff_client: MakeClient) -> None:
    body = {"data": b'{"name": "a"}', "content_type": "application/json"}
    viewer, operator = staff_client("viewer"), staff_client("operator")

    assert viewer.get("/api/probe").status_code == 200
    assert code_of(viewer.post("/api/probe", **body)) == (403, "insufficient_scope")
    assert operator.post("/api/probe", **body).status_code == 200


def test_it_gives_people_who_are_no_staff_nothing(staff_client: MakeClient) -> None:
    response = staff_client("operator", is_staff=False).get("/api/probe")

    assert code_of(response) == (401, "not_authenticated")


def test_it_notes_the_last_use_once_a_minute(issued: IssuedKey) -> None:
    get(issued.authorization)
    first = ApiKey.objects.get().last_used_at
    get(issued.authorization)
    second = ApiKey.objects.get().last_used_at
    ApiKey.objects.update(last_used_at=timezone.now() - dt.timedelta(seconds=61))
    get(issued.authorization)
    third = ApiKey.objects.get().last_used_at

    assert first is not None
    assert first == second
    assert third is not None
    assert third > first


@pytest.mark.django_db(transaction=True)
def test_it_never_waits_to_note_a_use() -> None:
    issued = apikey_create(name="busy", scopes=["customers:read"])
    answers: list[int] = []
    with transaction.atomic():
        ApiKey.objects.select_for_update().get(pk=issued.key.pk)

        request = threading.Thread(target=lambda: answers.append(_status_and_close(issued)))
        request.start()
        request.join(timeout=60)

        assert answers == [200]
    assert ApiKey.objects.get().last_used_at is None


def _status_and_close(issued: IssuedKey) -> int:
    try:
        return get(issued.authorization).status_code
    finally:
        connection.close()


def test_it_lets_the_old_key_work_for_the_grace_period(issued: IssuedKey) -> None:
    successor = apikey_rotate(prefix=issued.key.prefix, grace=dt.timedelta(hours=1), actor="user:ann")

    assert get(issued.authorization).status_code == 200
    assert get(successor.authorization).status_code == 200
    assert successor.key.scopes == issued.key.scopes
    old = ApiKey.objects.get(pk=issued.key.pk)
    assert old.expires_at is not None
    assert old.expires_at - timezone.now() <= dt.timedelta(hours=1)


def test_it_ends_the_old_key_at_once_without_grace(issued: IssuedKey) -> None:
    apikey_rotate(prefix=issued.key.prefix)

    assert code_of(get(issued.authorization)) == (401, "credentials_refused")


def test_it_gives_a_key_one_successor(issued: IssuedKey) -> None:
    apikey_rotate(prefix=issued.key.prefix, grace=dt.timedelta(hours=1))

    with pytest.raises(ApiKeyRefused, match="rotated already"):
        apikey_rotate(prefix=issued.key.prefix, grace=dt.timedelta(hours=1))

    assert ApiKey.objects.count() == 2


@pytest.mark.django_db(transaction=True)
def test_it_leaves_one_successor_when_two_rotate_at_once() -> None:
    issued = apikey_create(name="raced", scopes=["customers:read"])
    barrier = threading.Barrier(2)
    outcomes: list[str] = []

    def rotate() -> None:
        barrier.wait(timeout=60)
        try:
            apikey_rotate(prefix=issued.key.prefix, grace=dt.timedelta(hours=1))
            outcomes.append("rotated")
        except ApiKeyRefused:
            outcomes.append("refused")
        finally:
            connection.close()

    threads = [threading.Thread(target=rotate) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)

    assert sorted(outcomes) == ["refused", "rotated"]
    assert ApiKey.objects.filter(rotated_from=issued.key).count() == 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": " ", "scopes": ["customers:read"]}, "name"),
        ({"name": "x" * 101, "scopes": ["customers:read"]}, "name"),
        ({"name": "x", "scopes": []}, "scope"),
        ({"name": "x", "scopes": ["customers:everything"]}, "Unknown scopes: customers:everything"),
        ({"name": "x", "scopes": ["customers:read"], "expires_at": timezone.now() - dt.timedelta(days=1)}, "over"),
    ],
)
def test_it_issues_no_nonsense(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ApiKeyRefused, match=message):
        apikey_create(**values)

    assert not ApiKey.objects.exists()


@pytest.mark.feature("C16")
def test_it_audits_the_life_of_a_key(issued: IssuedKey) -> None:
    successor = apikey_rotate(prefix=issued.key.prefix, actor="user:ann")
    apikey_revoke(prefix=successor.key.prefix, actor="user:bob")
    apikey_revoke(prefix=successor.key.prefix, actor="user:bob")

    entries = [(entry.actor, entry.action, entry.target) for entry in AuditEntry.objects.order_by("pk")]
    assert entries == [
        ("system", "apikey.created", f"apikey:{issued.key.prefix}"),
        ("user:ann", "apikey.rotated", f"apikey:{issued.key.prefix}"),
        ("user:bob", "apikey.revoked", f"apikey:{successor.key.prefix}"),
    ]
