from __future__ import annotations

import pytest
from django.conf import LazySettings
from django.db import IntegrityError, connection, transaction

from outbox.checks import check_subscribers
from outbox.errors import ErrorClass
from outbox.models import Delivery, DeliveryAttempt, Detour, Lane, TopicFigure
from outbox.relay import relay_until_idle
from outbox.status import events_statuses
from outbox.subscribers import Failure
from outbox.subscriptions import subscription_limit
from tests.outbox.collecting import Collector, Ledger, refusing
from tests.outbox.conftest import new, publish_all

pytestmark = [pytest.mark.feature("D9", "H2")]


def test_a_dead_delivery_holds_its_aggregate_back_by_default(collector: Collector) -> None:
    collector.refuse = lambda event: _no(event) if (event.aggregate_id, event.sequence) == ("bad", 1) else None
    publish_all("bad", "bad", "good")

    relay_until_idle()

    assert collector.sequences() == {"good": [1]}
    assert Detour.objects.get().due is None


@pytest.mark.parametrize(
    "policy",
    [{"collector/customers": "skip"}, {"collector": "skip"}, {"*/customers": "skip"}, "collector=skip", {"*": "skip"}],
)
def test_its_aggregate_goes_on_where_the_policy_says_so(
    collector: Collector, settings: LazySettings, policy: object
) -> None:
    settings.OUTBOX_DEAD_POLICY = policy
    collector.refuse = lambda event: _no(event) if (event.aggregate_id, event.sequence) == ("bad", 2) else None
    ids = publish_all("bad", "bad", "bad", "good")
    relay_until_idle()
    ids += publish_all("bad")

    relay_until_idle()

    delivery = Delivery.objects.get()
    assert collector.sequences() == {"bad": [1, 3, 4], "good": [1]}
    assert (delivery.state, delivery.sequence) == ("dead", 2)
    assert not Detour.objects.exists()
    statuses = [events_statuses([event])[event][0].status.value for event in ids]
    assert statuses == ["processed", "dead", "processed", "processed", "processed"]


def test_the_most_specific_policy_counts(collector: Collector, settings: LazySettings) -> None:
    settings.OUTBOX_DEAD_POLICY = {"*": "skip", "collector": "skip", "collector/customers": "block"}
    collector.refuse = refusing("bad", error_class=ErrorClass.PERMANENT)
    publish_all("bad", "bad")

    relay_until_idle()

    assert Delivery.objects.count() == 1


@pytest.mark.parametrize(
    ("policy", "path", "found"),
    [
        ({"*": "drop"}, "tests.outbox.collecting.Collector", ["outbox.E006"]),
        ({"ledger/customers": "skip"}, "tests.outbox.collecting.Ledger", ["outbox.E007"]),
        ({"collector": "skip"}, "tests.outbox.collecting.Ledger", []),
    ],
)
def test_it_checks_the_policy(settings: LazySettings, policy: object, path: str, found: list[str]) -> None:
    settings.OUTBOX_SUBSCRIBERS = [path]
    settings.OUTBOX_DEAD_POLICY = policy

    assert [message.id for message in check_subscribers()] == found


@pytest.mark.feature("D10")
def test_it_keeps_every_attempt_after_a_failure_with_worker_duration_and_answer(collector: Collector) -> None:
    failing = [True, True, False]

    def refuse(event: object) -> Failure | None:
        if event.aggregate_id == "bad" and failing.pop(0):  # type: ignore[attr-defined]
            return Failure(event, ErrorClass.RETRYABLE, "refused", "no", response="HTTP 500")  # type: ignore[arg-type]
        return None

    collector.refuse = refuse
    collector.ladder = (0.0, 0.0, 0.0)
    (bad, _) = publish_all("bad", "good")

    relay_until_idle()

    attempts = list(DeliveryAttempt.objects.order_by("id"))
    assert [(one.event_id, one.number, one.outcome, one.response) for one in attempts] == [
        (bad, 1, "failed", "HTTP 500"),
        (bad, 2, "failed", "HTTP 500"),
        (bad, 3, "delivered", ""),
    ]
    assert all(one.worker and one.seconds >= 0 and one.started_at for one in attempts)
    assert list(Delivery.objects.get().timeline.order_by("id")) == attempts
    assert Delivery.objects.get().resolution == "delivered"


@pytest.mark.parametrize("kind", [Collector, Ledger])
def test_it_keeps_successes_only_while_that_is_switched_on(
    kind: type[Collector | Ledger], request: pytest.FixtureRequest
) -> None:
    request.getfixturevalue(kind.name)
    publish_all("a", "b")
    relay_until_idle()
    before = DeliveryAttempt.objects.count()
    subscription_limit(name=kind.name, rate_limit=None, concurrency=None, keep_successes=True, actor="user:ann")
    ids = publish_all("a", "b")

    relay_until_idle()

    assert before == 0
    found = DeliveryAttempt.objects.order_by("event_id").values_list("subscriber", "event_id", "number", "outcome")
    assert list(found) == [(kind.name, event, 1, "delivered") for event in ids]


def test_attempts_are_only_ever_added(collector: Collector) -> None:
    collector.refuse = refusing("bad", error_class=ErrorClass.PERMANENT)
    publish_all("bad")
    relay_until_idle()

    for change in ("UPDATE outbox_attempt SET number = 9", "DELETE FROM outbox_attempt"):
        with pytest.raises(IntegrityError, match="only ever added"), transaction.atomic():
            connection.cursor().execute(change)

    assert DeliveryAttempt.objects.get().number == 1


@pytest.mark.feature("H4")
def test_failures_that_differ_in_ids_and_numbers_alone_are_of_one_kind(collector: Collector) -> None:
    messages = {
        "a": "Customer 17 (0192f3a1-7c00-7000-8000-000000000001) was refused after 250 ms: 'x'",
        "b": "Customer 99 (0192f3a1-7c00-7000-8000-0000000000ff) was refused after 3 ms: 'y'",
        "c": "Customer 17 was not found",
    }
    collector.refuse = lambda event: Failure(event, ErrorClass.PERMANENT, "no", messages[event.aggregate_id])
    with transaction.atomic():
        from outbox.publishing import publish_many

        publish_many([new("a"), new("b", type="customer.deleted"), new("c")])

    relay_until_idle()

    kinds = dict(Delivery.objects.values_list("aggregate_id", "fingerprint"))
    assert kinds["a"] == kinds["b"] != kinds["c"]


@pytest.mark.feature("D7")
def test_it_counts_by_topic(collector: Collector) -> None:
    collector.ladder = (0.0,)
    collector.refuse = refusing("bad")
    with transaction.atomic():
        from outbox.publishing import publish_many

        publish_many([new("a"), new("b", topic="orders"), new("c", topic="orders"), new("bad", topic="orders")])

    relay_until_idle()

    figures = TopicFigure.objects.order_by("topic").values_list("topic", "processed", "errors", "retries")
    assert list(figures) == [("customers", 1, 0, 0), ("orders", 2, 2, 1)]
    assert sum(Lane.objects.values_list("processed", flat=True)) == 3


def _no(event: object) -> Failure:
    return Failure(event, ErrorClass.PERMANENT, "refused", "no")  # type: ignore[arg-type]
