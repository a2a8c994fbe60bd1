"""The life of things that did not go well at once, and of things that no app of ours knows."""

from __future__ import annotations

import datetime as dt
import secrets
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from django.conf import LazySettings
from django.utils import timezone

from customers.readmodels.directory import CustomerDirectory
from customers.services import customer_create
from examples.petstore.services import order_place, pet_create
from examples.petstore.shipping import GROUP
from operations.correlation import work_bound
from operations.life import sources
from operations.life.sources import Entry, LifeSource, Name, Subject, Term, Thread, Told
from outbox.consuming.handlers import handlers_load
from outbox.consuming.worker import ConsumerWorker
from outbox.deciding import deliveries_skip
from outbox.errors import ErrorClass
from outbox.models import Delivery, ParkedMessage, StoredEvent
from outbox.relay import relay_until_idle
from projections.models import Failure
from projections.resolving import failure_resolve
from projections.runner import projections_run_once
from tests.customers.conftest import Api
from tests.outbox.collecting import Collector, refusing
from tests.outbox.conftest import collector, publish_all
from tests.projections.cleaning import builds_drop
from tests.zenskar.test_life import life, told

__all__ = ["collector"]

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.feature("H5")]


@pytest.fixture(autouse=True)
def _clean(transactional_db: None) -> Iterator[None]:
    builds_drop("customers_directory", "customers_activity", "petstore_order_book")
    yield
    builds_drop("customers_directory", "customers_activity", "petstore_order_book")


@pytest.fixture
def api(transactional_db: None) -> Api:
    return Api("operations:read", "operations:write")


def of_kind(document: Any, kind: str) -> list[Any]:
    return [entry for entry in document["entries"] if entry["kind"] == kind]


def test_it_tells_each_attempt_and_who_decided(api: Api, collector: Collector) -> None:
    collector.refuse = refusing("bad", error_class=ErrorClass.PERMANENT)
    (event,) = publish_all("bad")
    relay_until_idle()
    dead = life(api, event)
    deliveries_skip(ids=[Delivery.objects.get().pk], actor="user:ann", reason="known")

    skipped = life(api, event)

    (waiting,) = of_kind(dead, "delivery")
    (attempt,) = of_kind(dead, "attempt")
    assert (waiting["state"], waiting["at"], waiting["attempts"]) == ("dead", None, 1)
    assert (attempt["state"], attempt["at"] is not None, attempt["seconds"] >= 0) == ("failed", True, True)
    (over,) = of_kind(skipped, "delivery")
    assert (over["state"], over["at"] > attempt["at"], over["text"]) == ("skipped", True, "no bad today")
    (decided,) = of_kind(skipped, "audit")
    assert (decided["what"], "user:ann" in decided["text"]) == ("delivery.skipped", True)


@pytest.mark.parametrize("scopes", [("operations:read",), ("operations:read", "operations:write")])
def test_it_tells_what_a_read_model_could_not_apply(
    settings: LazySettings, monkeypatch: pytest.MonkeyPatch, scopes: tuple[str, ...]
) -> None:
    settings.PROJECTIONS = ["customers.readmodels.directory.CustomerDirectory"]
    monkeypatch.setattr(CustomerDirectory, "types", {"customer.updated": 1})
    customer = customer_create(name="Ada")
    projections_run_once()
    failing = life(Api(*scopes), customer.event_id)
    failure_resolve(failure_id=Failure.objects.get().pk, strategy="skip", actor="user:ann")
    projections_run_once()

    resolved = life(Api(*scopes), customer.pk)

    (failed,) = of_kind(failing, "read_model")
    (failure,) = of_kind(failing, "projection_failure")
    assert (failed["state"], failed["at"]) == ("failed", None)
    assert (failure["attempts"], failure["ended_at"]) == (1, None)
    assert ("customer.created" in failure["text"]) is (len(scopes) == 2)
    assert of_kind(resolved, "projection_failure")[0]["state"] == "resolved"
    assert [entry["state"] for entry in of_kind(resolved, "read_model")] == ["passed over"]
    assert [entry["what"] for entry in of_kind(resolved, "audit")] == ["projection_failure.resolved"]


def test_a_moment_of_a_read_model_is_late_and_never_early(api: Api, settings: LazySettings) -> None:
    settings.PROJECTIONS = ["customers.readmodels.directory.CustomerDirectory"]
    customer = customer_create(name="Ada")
    before = timezone.now()
    projections_run_once()

    (entry,) = of_kind(life(api, customer.event_id), "read_model")

    at = dt.datetime.fromisoformat(entry["at"])
    assert before < at < timezone.now()


def test_it_follows_an_order_through_kafka_and_back(
    api: Api, settings: LazySettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.KAFKA_TOPIC_PREFIX = f"t{secrets.token_hex(4)}"
    settings.OUTBOX_POLLING_INTERVAL = 0.05
    handlers_load()
    with work_bound("order", correlation="order-of-ann"):
        pet, _ = pet_create(name="Max", species="dog", price=Decimal(800))
        order, _ = order_place(customer_id="c", pet_id=pet.pk)
    relay_until_idle()
    worker = ConsumerWorker(GROUP, ["orders"])
    try:
        worker.run_until_idle()
    finally:
        worker.close()
    projections_run_once()

    found = life(api, order.pk)
    whole = life(api, "order-of-ann")

    assert (found["subject"]["kind"], found["subject"]["value"]) == ("order", order.pk)
    events = of_kind(found, "event")
    assert [entry["what"] for entry in events] == ["created", "confirmed", "shipped"]
    assert f"event:{StoredEvent.objects.get(type='confirmed').uid}" in events[-1]["about"]
    handled = {entry["what"]: entry for entry in of_kind(found, "message")}
    assert handled[f"confirmed at {GROUP}"]["state"] == "handled"
    assert "partition" in handled[f"confirmed at {GROUP}"]["text"]
    assert ("read_models", "read_model", "applied") in told(found)
    assert {entry["what"] for entry in of_kind(whole, "event")} == {"created", "confirmed", "shipped", "reserved"}


@pytest.mark.parametrize("producer", ["ours", "another"])
def test_it_tells_of_messages_that_could_not_be_handled(api: Api, producer: str) -> None:
    pet_create(name="Max", species="dog", price=Decimal(800))
    event = StoredEvent.objects.get()
    name = str(event.uid) if producer == "ours" else "theirs/1"
    ParkedMessage.objects.create(
        consumer_group="g",
        event_id=name,
        topic="pets",
        partition=3,
        offset=14,
        timestamp=0,
        headers=[],
        aggregate_id=event.aggregate_id,
        state="dead",
        attempts=6,
        code="Broken",
    )

    (parked,) = of_kind(life(api, f"event:{name}"), "parked")

    assert (parked["state"], parked["attempts"], parked["text"]) == ("dead", 6, "pets, partition 3, offset 14; Broken")


class Letters(LifeSource):
    """A stranger's: letters that were sent, kept in memory."""

    name = "letters"
    title = "Letters"
    permission = "petstore.view_order"
    order = 70

    def recognise(self, term: Term) -> list[Subject]:
        others = frozenset({Name("customer", "c-1")})
        return [Subject(name=Name("letter", "42"), title="Letter 42", others=others)] if term.text == "L42" else []

    def tell(self, thread: Thread) -> Told:
        at = timezone.now() - dt.timedelta(days=1)
        to = thread.named("customer")
        return Told([Entry(kind="letter", id="42", what=f"A letter to {one}", at=at) for one in to])


@pytest.fixture
def letters() -> Iterator[None]:
    sources.register(Letters())
    yield
    sources.unregister("letters")


def test_another_app_adds_what_it_knows(letters: None, api: Api) -> None:
    publish_all("c-1")

    by_letter, by_customer = life(api, "L42"), life(api, "c-1")

    for found in (by_letter, by_customer):
        assert found["entries"][0]["what"] == "A letter to c-1"
        assert [entry["what"] for entry in of_kind(found, "event")] == ["customer.updated"]
    assert by_letter["subject"]["title"] == "Letter 42"
