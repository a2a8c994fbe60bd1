from __future__ import annotations

import json
import os
import signal
import threading
import time
from typing import Any
from uuid import UUID

import pytest
from django.db import connection
from django.test import Client

from customers.erasing.services import customer_erase
from customers.models import Customer
from operations.idempotency import decorators
from operations.idempotency.answers import answer_find, answer_keep
from operations.idempotency.decorators import idempotent_function
from operations.idempotency.errors import AnswerErased, KeyInFlight, KeyReused
from operations.idempotency.keys import Answer, HeldKey, Scope, answer_kept, answers_forget, key_begin, keys_clean_once
from operations.keys import IssuedKey, apikey_create
from operations.models import IdempotencyKey
from outbox.models import StoredEvent
from tests.children import child_run
from tests.customers.races import in_threads
from tests.operations.conftest import api, issued

__all__ = ["api", "issued"]
pytestmark = [pytest.mark.feature("C10"), pytest.mark.django_db(transaction=True)]

URL = "/api/v1/customers/"
BODY = {"name": "Ann", "email": "ann@example.com"}


def send(client: Client, key: str, body: Any = None, *, url: str = URL, method: str = "POST", **headers: str) -> Any:
    text = json.dumps(BODY if body is None else body)
    return client.generic(
        method, url, text, content_type="application/json", headers={"Idempotency-Key": key, **headers}
    )


def lease_over() -> None:
    IdempotencyKey.objects.update(lease_until="2020-01-01T00:00:00Z")


def test_it_does_once_what_is_asked_twice(api: Client) -> None:
    first, again = send(api, "k"), send(api, '"k"')

    assert (first.status_code, again.status_code) == (201, 201)
    assert first.content == again.content
    for name in ("Location", "ETag", "Content-Type", "Cache-Control"):
        assert first[name] == again[name]
    assert "Idempotent-Replayed" not in first
    assert again["Idempotent-Replayed"] == "true"
    assert Customer.objects.count() == StoredEvent.objects.count() == 1


def test_it_knows_the_request_by_any_spelling_of_its_address(api: Client) -> None:
    answers = [send(api, "k", url=url) for url in (URL, "/api/v1/customers", "/customers/", "/customers")]

    assert {answer.content for answer in answers} == {answers[0].content}
    assert Customer.objects.count() == 1


def test_it_does_once_what_fifty_ask_at_the_same_time(issued: IssuedKey) -> None:
    answers: list[Any] = []

    refused: list[Any] = []

    def ask() -> None:
        client = Client(headers={"Authorization": issued.authorization})
        while (answer := send(client, "k")).status_code == 409:
            refused.append(answer)
        answers.append(answer)

    # The pool has fifty: this thread's own goes back to it.
    connection.close()
    assert in_threads(*[ask] * 50) == []

    assert len(answers) == 50
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.content for answer in answers}) == 1
    assert [answer.get("Idempotent-Replayed") for answer in answers].count("true") == 49
    assert Customer.objects.count() == StoredEvent.objects.count() == 1
    assert all(answer.json()["code"] == "idempotency_key_in_flight" and answer["Retry-After"] for answer in refused)


def test_it_refuses_another_request_with_the_same_key(api: Client) -> None:
    send(api, "k")

    answer = send(api, "k", {**BODY, "name": "Bob"})

    assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key_reused")
    assert answer["Content-Type"] == "application/problem+json"
    assert Customer.objects.get().name == "Ann"


@pytest.mark.parametrize("key", ["", "x" * 256, "a b", "é", 'a"b', "a,b"])
def test_it_refuses_malformed_keys(api: Client, key: str) -> None:
    answer = send(api, key)

    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_idempotency_key")
    assert not Customer.objects.exists()


def test_it_keeps_the_keys_of_callers_apart(api: Client) -> None:
    other = apikey_create(name="other", scopes=["customers:read", "customers:write"])

    send(api, "k")
    answer = send(Client(headers={"Authorization": other.authorization}), "k", {"name": "Bob"})

    assert (answer.status_code, answer.json()["name"]) == (201, "Bob")


def test_it_keeps_the_keys_of_addresses_apart(api: Client) -> None:
    place = send(api, "k")["Location"].removeprefix("http://testserver")

    changed = send(api, "k", {"name": "Bob"}, url=place, method="PATCH")
    deleted = send(api, "k", {}, url=place, method="DELETE")
    again = send(api, "k", {}, url=place, method="DELETE")

    assert [changed.status_code, deleted.status_code, again.status_code] == [200, 204, 204]
    assert again["Idempotent-Replayed"] == "true"
    assert again.content == b""
    assert StoredEvent.objects.count() == 3


def test_it_replays_an_answer_that_is_no_longer_so(api: Client) -> None:
    place = send(api, "k")["Location"].removeprefix("http://testserver")
    first = send(api, "p", {"name": "Bob"}, url=place, method="PATCH")
    send(api, "q", {"name": "Cy"}, url=place, method="PATCH")

    again = send(api, "p", {"name": "Bob"}, url=place, method="PATCH")

    assert again.content == first.content
    assert Customer.objects.get().name == "Cy"


def test_it_takes_another_condition_for_another_request(api: Client) -> None:
    place = f"{URL}{send(api, 'k').json()['id']}/"

    stale = send(api, "p", {"name": "Bob"}, url=place, method="PATCH", **{"If-Match": '"99-0"'})
    other = send(api, "p", {"name": "Bob"}, url=place, method="PATCH", **{"If-Match": "*"})
    again = send(api, "p", {"name": "Bob"}, url=place, method="PATCH", **{"If-Match": '"99-0"'})

    assert [answer.status_code for answer in (stale, other, again)] == [412, 422, 412]


def test_it_keeps_problems_that_would_come_again(api: Client) -> None:
    place = f"{URL}019a8f6e-6a1b-7c3d-9e4f-5a6b7c8d9e0f/"
    customer = send(api, "a")["Location"].removeprefix("http://testserver")

    taken = [send(api, "k") for _ in range(2)]
    missing = [send(api, "k", {"name": "x"}, url=place, method="PATCH") for _ in range(2)]
    headers = {"If-Match": '"0-0"'}
    stale = [send(api, "k", {"name": "x"}, url=customer, method="PATCH", **headers) for _ in range(2)]

    assert [answer.status_code for answer in taken + missing + stale] == [409, 409, 404, 404, 412, 412]
    for first, again in (taken, missing, stale):
        assert first.content == again.content
        assert again["Idempotent-Replayed"] == "true"
        assert again["Content-Type"] == "application/problem+json"


def test_it_forgets_what_can_be_mended(api: Client) -> None:
    wrong = send(api, "k", {"name": ""})

    mended = send(api, "k")

    assert (wrong.status_code, mended.status_code) == (400, 201)
    assert "Idempotent-Replayed" not in mended


def test_it_forgets_what_went_wrong_here(api: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("a fault of ours")

    with monkeypatch.context() as patch:
        patch.setattr("customers.api.views.customer_representation", broken)
        api.raise_request_exception = False
        failed = send(api, "k")
    again = send(api, "k")

    assert (failed.status_code, again.status_code) == (500, 201)
    assert Customer.objects.count() == StoredEvent.objects.count() == 1


def test_it_says_that_a_request_is_in_flight(api: Client, issued: IssuedKey, monkeypatch: pytest.MonkeyPatch) -> None:
    reached, go_on = threading.Event(), threading.Event()

    def slow(*args: Any) -> None:
        reached.set()
        assert go_on.wait(60)
        answer_keep(*args)

    monkeypatch.setattr(decorators, "answer_keep", slow)
    answers: list[Any] = []

    def ask() -> None:
        answers.append(send(Client(headers={"Authorization": issued.authorization}), "k"))

    first = threading.Thread(target=lambda: in_threads(ask))
    first.start()
    assert reached.wait(60)
    early, other = send(api, "k"), send(api, "k", {"name": "Bob"})
    go_on.set()
    first.join(60)
    late, mistaken = send(api, "k"), send(api, "k", {"name": "Bob"})

    assert [early.status_code, other.status_code] == [409, 409]
    assert early["Retry-After"]
    assert [answer.status_code for answer in (*answers, late, mistaken)] == [201, 201, 422]
    assert Customer.objects.count() == 1


@pytest.mark.parametrize("body", [BODY, {"name": "Ann"}])
def test_it_undoes_what_was_done_beside_another_request(
    api: Client, issued: IssuedKey, monkeypatch: pytest.MonkeyPatch, body: dict[str, str]
) -> None:
    looked: list[Any] = []

    def late(scope: Scope, fingerprint: str) -> Any:
        found = answer_find(scope, fingerprint)
        if not looked:
            # Between its look and its transaction another request with the key comes and goes.
            looked.append(found)
            looked.append(send(Client(headers={"Authorization": issued.authorization}), "k", body))
        return found

    monkeypatch.setattr(decorators, "answer_find", late)
    answer = send(api, "k", body)

    assert looked[0] is None
    assert answer.status_code == looked[1].status_code == 201
    assert answer.content == looked[1].content
    assert answer["Idempotent-Replayed"] == "true"
    assert Customer.objects.count() == StoredEvent.objects.count() == 1


def test_it_stops_a_request_that_was_taken_over_before_it_began(issued: IssuedKey) -> None:
    scope = Scope(actor="a", key="k", method="POST", route="/x")
    suspended = key_begin(scope, "0" * 64)
    lease_over()
    taken = key_begin(scope, "0" * 64)

    assert isinstance(suspended, HeldKey)
    assert isinstance(taken, HeldKey)
    with pytest.raises(KeyInFlight):
        suspended.lock()
    taken.lock()


def test_whoever_was_taken_over_completes_nothing(issued: IssuedKey) -> None:
    scope = Scope(actor="a", key="k", method="POST", route="/x")
    suspended = key_begin(scope, "1" * 64)
    lease_over()
    taken = key_begin(scope, "1" * 64)
    assert isinstance(suspended, HeldKey) and isinstance(taken, HeldKey)

    with pytest.raises(KeyInFlight):
        suspended.complete(Answer(status=200, body=b"of the one that was suspended"))
    taken.complete(Answer(status=200, body=b"of the one that took over"))
    with pytest.raises(KeyInFlight):
        suspended.complete(Answer(status=200, body=b"of the one that was suspended"))

    assert key_begin(scope, "1" * 64) == Answer(status=200, body=b"of the one that took over")


@pytest.mark.parametrize(("moment", "replayed"), [("before", False), ("after", True)])
def test_it_gives_the_right_answer_after_its_process_was_killed(
    api: Client, issued: IssuedKey, moment: str, replayed: bool
) -> None:
    def work() -> None:
        # Before the commit of the effect and its answer, or after it.
        last = "answer_keep" if moment == "before" else "answer_response"
        setattr(decorators, last, lambda *args, **more: os.kill(os.getpid(), signal.SIGKILL))
        send(Client(headers={"Authorization": issued.authorization}), "k")

    ended = child_run(work)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert Customer.objects.count() == (1 if replayed else 0)

    # Until the server has noticed that its client is gone.
    while (late := send(api, "k")).status_code == 409:
        time.sleep(0.01)

    assert late.status_code == 201
    assert ("Idempotent-Replayed" in late) is replayed
    assert Customer.objects.count() == StoredEvent.objects.count() == 1
    assert late.json()["id"] == str(Customer.objects.get().pk)


def test_it_forgets_keys_when_they_expire(api: Client) -> None:
    send(api, "k")
    place = Customer.objects.get()
    IdempotencyKey.objects.update(expires_at="2020-01-01T00:00:00Z")

    anew = send(api, "k", {"name": "Bob"})
    IdempotencyKey.objects.update(expires_at="2020-01-01T00:00:00Z")

    assert anew.status_code == 201
    assert Customer.objects.exclude(pk=place.pk).get().name == "Bob"
    assert keys_clean_once() == 1
    assert not IdempotencyKey.objects.exists()


def test_it_can_forget_what_speaks_of_a_person(api: Client) -> None:
    customer = send(api, "k").json()["id"]
    place = f"{URL}{customer}/"
    send(api, "p", {"name": "Bob"}, url=place, method="PATCH")
    send(api, "q", {"name": "Cy"})

    assert answers_forget(subject=f"customer:{customer}") == 2
    rows = list(IdempotencyKey.objects.order_by("key"))
    assert [(row.key, row.status) for row in rows] == [("k", 410), ("p", 410), ("q", 201)]
    for row in rows[:2]:
        assert (bytes(row.body), row.headers, row.subject, row.fingerprint) == (b"", {}, "", "0" * 64)
    assert answers_forget(subject=f"customer:{customer}") == 0


@pytest.mark.parametrize("body", [BODY, {"name": "Bob"}])
@pytest.mark.parametrize("protection", ["false", "true"])
def test_it_does_nothing_again_when_what_it_answered_was_erased(
    api: Client, body: dict[str, str], protection: str
) -> None:
    customer = send(api, "k").json()["id"]
    customer_erase(customer_id=UUID(customer), actor="tests")
    events = StoredEvent.objects.count()

    again = send(api, "k", body, **{"X-Use-Integrity-Protection": protection})

    assert (again.status_code, again["Content-Type"]) == (410, "application/problem+json")
    assert again.json()["code"] == "answer_erased"
    assert b"Ann" not in again.content
    assert (Customer.objects.count(), StoredEvent.objects.count()) == (1, events)


def test_its_key_is_free_again_when_an_erased_answer_expires(api: Client) -> None:
    customer = send(api, "k").json()["id"]
    customer_erase(customer_id=UUID(customer), actor="tests")
    IdempotencyKey.objects.update(expires_at="2020-01-01T00:00:00Z")

    anew = send(api, "k", {"name": "Bob"})

    assert anew.status_code == 201
    assert IdempotencyKey.objects.get().status == 201


def test_it_tells_calls_and_whoever_waits_that_an_answer_was_erased() -> None:
    calls: list[str] = []

    @idempotent_function("tests.create")
    def create(*, name: str) -> str:
        calls.append(name)
        return name

    create(name="Ann", idempotency_key="k", actor="a")
    IdempotencyKey.objects.update(subject="customer:x")
    answers_forget(subject="customer:x")

    for name in ("Ann", "Bob"):
        with pytest.raises(AnswerErased):
            create(name=name, idempotency_key="k", actor="a")
    with pytest.raises(AnswerErased):
        answer_kept(key_id=IdempotencyKey.objects.get().pk)
    assert calls == ["Ann"]


def test_it_makes_functions_idempotent_too() -> None:
    @idempotent_function("tests.create")
    def create(*, name: str) -> dict[str, str]:
        return {"id": str(Customer.objects.create(name=name).pk)}

    first = create(name="Ann", idempotency_key="k", actor="a")
    again = create(name="Ann", idempotency_key="k", actor="a")
    create(name="Ann", idempotency_key="k", actor="b")
    create(name="Ann")

    assert first == again
    assert Customer.objects.count() == 3
    with pytest.raises(KeyReused):
        create(name="Bob", idempotency_key="k", actor="a")


def test_it_forgets_a_call_that_raised() -> None:
    calls: list[str] = []

    @idempotent_function("tests.fails_once")
    def fails_once(*, name: str) -> str:
        Customer.objects.create(name=name)
        calls.append(name)
        if len(calls) == 1:
            raise ValueError(name)
        return name

    with pytest.raises(ValueError, match="Ann"):
        fails_once(name="Ann", idempotency_key="k")

    assert fails_once(name="Ann", idempotency_key="k") == "Ann"
    assert Customer.objects.count() == 1


def test_it_honours_keys_at_the_operators_addresses(api: Client) -> None:
    body = {"kind": "outbox.replay", "filter": {"code": "x"}, "reason": "r"}

    answers = [send(api, "k", body, url="/api/v1/admin/operations/") for _ in range(2)]

    assert answers[0].content == answers[1].content
    assert answers[1]["Idempotent-Replayed"] == "true"
