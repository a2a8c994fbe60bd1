from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial

import pytest
from django.conf import LazySettings
from django.core.management import call_command
from django.db import connection, transaction

from operations.models import AuditEntry
from outbox.checks import check_subscribers
from outbox.deciding import deliveries_skip
from outbox.errors import ErrorClass
from outbox.models import (
    Delivery,
    DeliveryAttempt,
    LogEntry,
    Replacement,
    Retained,
    StoredEvent,
    Subscription,
    Watermark,
)
from outbox.partitions import partitions_make
from outbox.pruning import rows_prunable, rows_prune
from outbox.publishing import publish_many
from outbox.relay import relay_until_idle
from outbox.retention import Judged, partitions_prune
from outbox.subscriptions import subscription_ensure, subscriptions_ensure
from outbox.tasks import prune
from tests.outbox.collecting import Collector, refusing
from tests.outbox.conftest import new, publish_all
from tests.outbox.test_races import Threads

pytestmark = [pytest.mark.feature("H1", "A13"), pytest.mark.django_db(transaction=True)]

SIZE = 50


@pytest.fixture
def small(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """Partitions of fifty numbers, and those of the migration again afterwards."""
    _drop_all()
    with connection.cursor() as cursor:
        # The first event of a test is the first of a partition, wherever the tests before it have left the log.
        for name in ("outbox_event_id_seq", "outbox_log_position_seq"):
            cursor.execute(f"SELECT setval('{name}', (last_value / {SIZE} + 1) * {SIZE}, false) FROM {name}")
    for module in ("outbox.relay", "outbox.sequencing"):
        monkeypatch.setattr(f"{module}.partitions_make", partial(partitions_make, ahead=8, size=SIZE))
    partitions_make(connection, ahead=8, size=SIZE)
    yield collector
    _drop_all()
    partitions_make(connection)


@pytest.fixture
def week(settings: LazySettings) -> None:
    settings.OUTBOX_RETENTION = {"*": "7"}


def _drop_all() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid"
            " WHERE i.inhparent IN ('outbox_event'::regclass, 'outbox_log'::regclass) AND c.relname !~ 'default'"
        )
        for (name,) in cursor.fetchall():
            cursor.execute(f"DROP TABLE {name}")


def fill(count: int = 120, *, topic: str = "customers", old: bool = True) -> None:
    """Events enough to fill two partitions, old ones unless said otherwise, brought to the subscriber."""
    with transaction.atomic():
        publish_many([new(f"c{n % 10}", topic=topic) for n in range(count)])
    if old:
        age()
    relay_until_idle()
    # The quiet lanes follow the head a second later.
    with connection.cursor() as cursor:
        cursor.execute("UPDATE outbox_lane SET cursor = (SELECT last_value FROM outbox_log_position_seq)")


def age() -> None:
    with connection.cursor() as cursor:
        cursor.execute("UPDATE outbox_event SET created_at = created_at - interval '30 days'")


def dropped(judged: list[Judged]) -> list[str]:
    return [one.name for one in judged if one.dropped]


def run(apply: bool = True, wait: float = 10.0) -> list[Judged]:
    return partitions_prune(apply=apply, size=SIZE, wait=wait)


def test_it_drops_partitions_that_nobody_needs_and_remembers_where_the_log_begins(small: Collector, week: None) -> None:
    fill()
    would = run(apply=False)
    before = StoredEvent.objects.count()

    done = run()

    assert all(not one.dropped for one in would)
    assert len([name for name in dropped(done) if name.startswith("outbox_event")]) >= 2
    assert any(name.startswith("outbox_log") for name in dropped(done))
    retained = Retained.objects.get()
    assert before == 120
    assert StoredEvent.objects.count() < before
    assert not StoredEvent.objects.filter(pk__lt=retained.first_event_id).exists()
    places = LogEntry.objects.filter(position__gte=retained.first_position).values_list("event_id", flat=True)
    assert set(places) <= set(StoredEvent.objects.values_list("pk", flat=True))
    publish_all("after")
    relay_until_idle()
    assert small.got[-1].aggregate_id == "after"


def test_it_keeps_everything_by_default(small: Collector) -> None:
    fill()

    assert dropped(run()) == []
    assert StoredEvent.objects.count() == 120


def test_one_topic_that_is_kept_for_ever_keeps_its_partition(small: Collector, settings: LazySettings) -> None:
    settings.OUTBOX_RETENTION = {"customers": "7"}
    fill(60, topic="orders")
    fill(60)

    judged = run()

    assert dropped(judged) == []
    assert judged[0].obstacle == "events of it are kept longer"


def test_young_events_keep_their_partition(small: Collector, week: None) -> None:
    fill(old=False)

    assert dropped(run()) == []


def test_a_subscriber_that_has_not_read_it_keeps_it(small: Collector, week: None) -> None:
    fill()
    with connection.cursor() as cursor:
        cursor.execute("UPDATE outbox_lane SET cursor = 0 WHERE lane = 17")

    judged = run()

    assert dropped(judged) == []
    assert judged[0].obstacle == "a subscriber has not read all of it"


def test_a_dead_delivery_keeps_it_until_somebody_decides(small: Collector, week: None) -> None:
    small.refuse = refusing("c3", error_class=ErrorClass.PERMANENT)
    fill()
    before = run()
    deliveries_skip(ids=[Delivery.objects.get().pk], actor="user:ann", reason="x")
    small.refuse = lambda event: None
    relay_until_idle()

    assert dropped(before) == []
    assert before[0].obstacle == "open deliveries are of it"
    assert len(dropped(run())) >= 2


def test_what_is_not_sequenced_keeps_it(small: Collector, week: None) -> None:
    fill()
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO outbox_unsequenced (id, lane) SELECT min(id), 0 FROM outbox_event")

    assert run()[0].obstacle == "events of it are not sequenced yet"


def test_a_transaction_that_may_have_drawn_one_of_its_ids_keeps_it(small: Collector, week: None) -> None:
    drawn, go_on = threading.Event(), threading.Event()
    slow = Threads()

    def hold() -> None:
        with transaction.atomic():
            publish_many([new("slow")])
            drawn.set()
            go_on.wait(timeout=60)

    slow.run(hold)
    assert drawn.wait(timeout=60)
    fill()
    meanwhile = run(wait=0.2)
    go_on.set()
    slow.join()
    age()
    relay_until_idle()

    assert dropped(meanwhile) == []
    assert "still open" in meanwhile[0].obstacle
    assert "slow" in small.sequences()


def test_it_waits_for_no_lock_longer_than_a_second(small: Collector, week: None) -> None:
    locked, go_on = threading.Event(), threading.Event()
    reader = Threads()
    fill()

    def read() -> None:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("LOCK TABLE outbox_event IN ACCESS SHARE MODE")
            locked.set()
            go_on.wait(timeout=60)

    reader.run(read)
    assert locked.wait(timeout=60)
    judged = run()
    go_on.set()
    reader.join()

    assert dropped(judged) == []
    assert judged[0].obstacle == "the table is in use; it is tried again"
    assert StoredEvent.objects.count() == 120


def test_a_new_subscriber_that_would_miss_events_waits_for_a_person(
    small: Collector, week: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill()
    run()
    late = Collector()
    monkeypatch.setattr(Collector, "name", "late")

    subscription_ensure(late)

    one = Subscription.objects.get(name="late")
    first = Retained.objects.get().first_position
    assert f"from position {first}" in one.paused_reason
    assert set(one.lane_set.values_list("cursor", flat=True)) == {first - 1}


def test_a_subscriber_that_comes_back_behind_the_log_waits_for_a_person(small: Collector, week: None) -> None:
    fill()
    Subscription.objects.update(active=False)
    with connection.cursor() as cursor:
        cursor.execute("UPDATE outbox_lane SET cursor = 1 WHERE lane = 5")
    run()

    subscriptions_ensure()

    one = Subscription.objects.get()
    assert one.active
    assert "whole from position" in one.paused_reason


def test_it_removes_old_rows_in_batches_and_leaves_the_rest(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outbox.pruning.BATCH", 2)
    collector.refuse = refusing(*[f"c{n}" for n in range(7)], error_class=ErrorClass.PERMANENT)
    publish_all(*[f"c{n}" for n in range(7)])
    relay_until_idle()
    ids = list(Delivery.objects.values_list("pk", flat=True))
    deliveries_skip(ids=ids[:5], actor="user:ann", reason="x")
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("ALTER TABLE outbox_attempt DISABLE TRIGGER USER")
        cursor.execute("UPDATE outbox_attempt SET started_at = started_at - interval '91 days'")
        cursor.execute("ALTER TABLE outbox_attempt ENABLE TRIGGER USER")
    Delivery.objects.filter(pk__in=ids[:3]).update(resolved_at="2000-01-01T00:00Z")
    old = "2000-01-01T00:00Z"
    Replacement.objects.create(
        subscriber="collector", original_id=1, event_id=2, diff=[], actor="a", reason="b", created_at=old
    )
    Watermark.objects.update(passed_at="2000-01-01T00:00Z")
    would = rows_prunable()

    removed = rows_prune()

    assert (would["attempts"], would["deliveries"], would["replacements"]) == (7, 3, 1)
    assert (removed["attempts"], removed["deliveries"], removed["replacements"]) == (7, 3, 1)
    assert not DeliveryAttempt.objects.exists()
    assert Delivery.objects.count() == 4
    assert Watermark.objects.count() == 1
    assert sum(rows_prune().values()) == 0


def test_beat_and_the_command_prune(collector: Collector, capsys: pytest.CaptureFixture[str]) -> None:
    publish_all("a")
    relay_until_idle()

    assert prune() == 0
    call_command("outbox_prune")
    call_command("outbox_prune", "--apply")

    assert "0 attempts would be removed" in capsys.readouterr().out
    assert not AuditEntry.objects.filter(action="outbox.pruned").exists()


@pytest.mark.parametrize("value", [{"*": "soon"}, {"*": "0"}, "customers"])
def test_it_checks_its_setting(settings: LazySettings, value: object) -> None:
    settings.OUTBOX_SUBSCRIBERS = []
    settings.OUTBOX_RETENTION = value

    assert [message.id for message in check_subscribers()] == ["outbox.E002"]
