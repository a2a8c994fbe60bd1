from __future__ import annotations

import json
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from prometheus_client.parser import text_string_to_metric_families

from operations.metrics import metrics_page
from outbox.deciding import deliveries_skip
from outbox.errors import ErrorClass
from outbox.models import Delivery, Lane, StoredEvent
from outbox.publishing import publish
from outbox.relay import relay_until_idle
from tests.outbox.collecting import Collector, refusing
from tests.outbox.conftest import new, publish_all

pytestmark = [pytest.mark.feature("F3")]

PAGES = ["storedevent", "delivery", "subscription", "lane"]


@pytest.fixture
def client(transactional_db: None) -> Client:
    user = User.objects.create_superuser("root-outbox")
    made = Client()
    made.force_login(user)
    return made


@pytest.fixture
def dead(collector: Collector) -> Delivery:
    collector.refuse = refusing("bad", error_class=ErrorClass.PERMANENT)
    publish_all("bad")
    relay_until_idle()
    return Delivery.objects.get()


def test_it_shows_each_event_with_its_computed_status(collector: Collector, client: Client) -> None:
    collector.refuse = refusing("bad", error_class=ErrorClass.PERMANENT)
    with transaction.atomic():
        publish(new("bad", payload={"name": "<script>x</script>"}))
    publish_all("bad", "good")
    relay_until_idle()
    publish_all("later")

    listed = client.get("/admin/outbox/storedevent/")
    event = StoredEvent.objects.order_by("id")[0]
    shown = client.get(f"/admin/outbox/storedevent/{event.pk}/change/").content.decode()

    rows = {f"{row.aggregate_id}{row.sequence}": row for row in listed.context["cl"].result_list}
    found = {name: [one.status.value for one in row.statuses] for name, row in rows.items()}
    assert found == {"bad1": ["dead"], "bad2": ["blocked"], "good1": ["processed"], "later1": ["pending"]}
    assert "&lt;script&gt;" in shown
    assert "<script>x" not in shown
    assert "no bad today" in shown


@pytest.mark.parametrize("page", PAGES)
def test_it_lets_nobody_add_change_or_delete_a_record(collector: Collector, client: Client, page: str) -> None:
    collector.refuse = refusing("bad", error_class=ErrorClass.PERMANENT)
    publish_all("bad", "good")
    relay_until_idle()
    model = {"storedevent": StoredEvent, "delivery": Delivery, "lane": Lane}.get(page)
    key = model.objects.values_list("pk", flat=True)[0] if model else "collector"

    assert client.get(f"/admin/outbox/{page}/").status_code == 200
    assert client.get(f"/admin/outbox/{page}/{key}/change/").status_code == 200
    assert client.get(f"/admin/outbox/{page}/add/").status_code == 403
    assert client.post(f"/admin/outbox/{page}/{key}/change/", {"lane": "1"}).status_code == 403
    assert client.post(f"/admin/outbox/{page}/{key}/delete/", {"post": "yes"}).status_code == 403


def test_it_finds_events_by_id_uid_and_aggregate(collector: Collector, client: Client) -> None:
    first, second = publish_all("a", "b")
    uid = StoredEvent.objects.get(id=second).uid

    def found(term: str) -> list[int]:
        answer = client.get("/admin/outbox/storedevent/", {"q": term})
        assert answer.status_code == 200
        return [row.pk for row in answer.context["cl"].result_list]

    assert found(str(first)) == [first]
    assert found(str(uid)) == [second]
    assert found("customer:b") == [second]
    assert found("nonsense") == []


def test_its_list_touches_a_bounded_number_of_rows(collector: Collector, client: Client) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            """
            WITH written AS (
              INSERT INTO outbox_event (uid, lane, topic, type, aggregate_type, aggregate_id, sequence, schema_version,
                                        payload, headers, origin, correlation_id, causation_id, traceparent, created_at)
              SELECT md5(g::text)::uuid, g %% 64, 'customers', 't', 'customer', g::text, 1, 1, '{}', '{}', '', '', '',
                     '', now() FROM generate_series(1, %s) AS g RETURNING id, lane
            )
            INSERT INTO outbox_log (event_id, lane) SELECT id, lane FROM written
            """,
            [MANY],
        )
        cursor.execute("ANALYZE outbox_event; ANALYZE outbox_log")

    with CaptureQueriesContext(connection) as queries:
        answer = client.get("/admin/outbox/storedevent/")

    reads = [query["sql"] for query in queries if "outbox_event" in query["sql"]]
    assert len(answer.context["cl"].result_list) == 50
    assert len(reads) >= 3
    assert max(rows_touched(sql) for sql in reads) <= 10_001


def rows_touched(sql: str) -> int:
    """The most rows that any node of the statement's plan produced."""

    def most(node: dict[str, Any]) -> int:
        mine = node["Actual Rows"] * node["Actual Loops"]
        return max([mine, *(most(child) for child in node.get("Plans", []))])

    with connection.cursor() as cursor:
        cursor.execute("EXPLAIN (ANALYZE, FORMAT JSON) " + sql)
        plan = cursor.fetchone()[0]
    return most((json.loads(plan) if isinstance(plan, str) else plan)[0]["Plan"])


MANY = 20_000
"""More than the paginator counts, and enough for a plan that reads all to be seen."""


@pytest.mark.feature("A8", "D1")
def test_people_with_psql_find_events_under_their_old_names(collector: Collector) -> None:
    collector.refuse = refusing("bad", error_class=ErrorClass.PERMANENT)
    publish_all("bad", "good", "bad")
    relay_until_idle()

    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT aggregate_id, event_type, status, is_processed, processed_at IS NOT NULL, retry_count, max_retries,"
            " next_retry_at, error_message, event_data->>'n' FROM outbox_events ORDER BY id"
        )
        rows = cursor.fetchall()

    assert rows == [
        ("bad", "customer.updated", "dead", False, False, 0, 2, None, "no bad today", "1"),
        ("good", "customer.updated", "processed", True, True, 0, 2, None, None, "1"),
        ("bad", "customer.updated", "blocked", False, False, 0, 2, None, None, "1"),
    ]


@pytest.mark.feature("D7")
def test_its_figures_are_those_of_all_processes(collector: Collector) -> None:
    collector.refuse = refusing("bad", error_class=ErrorClass.PERMANENT)
    publish_all("bad", "good", "good")
    relay_until_idle()
    publish_all("later", "later")

    text, _ = metrics_page()

    found = {
        (sample.name, sample.labels.get("topic", "")): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
        if sample.labels.get("subscriber") == "collector"
    }
    assert found["zenskar_outbox_pending_events", "customers"] == 2
    assert found["zenskar_outbox_processed_total", "customers"] == 2
    assert found["zenskar_outbox_errors_total", "customers"] == 1
    assert found["zenskar_outbox_failed_events", "customers"] == 1


def test_its_list_has_words_for_people(dead: Delivery, client: Client) -> None:
    page = client.get("/admin/outbox/delivery/").content.decode()

    assert [name for name in ("Subscriber", "First failed", "Next attempt") if name not in page] == []
    assert "ubscription id" not in page


@pytest.mark.parametrize("replaceable", [True, False])
def test_a_large_payload_is_on_its_page_once_and_only_when_asked_for(
    dead: Delivery, client: Client, replaceable: bool
) -> None:
    text = "x" * 50_000 + "the end"
    Delivery.objects.update(envelope={**dead.envelope, "payload": {"text": text}})
    if not replaceable:
        deliveries_skip(ids=[dead.pk], actor="test", reason="large")
    address = f"/admin/outbox/delivery/{dead.pk}/change/"

    first = client.get(address).content.decode()
    whole = client.get(address, {"whole": "1"}).content.decode()

    assert ("the end" in first, whole.count("the end")) == (False, 1)
    assert "The first 20,000 of 50,0" in first
    assert (first.count("<textarea"), whole.count("<textarea")) == (0, int(replaceable))
    assert first.count('href="?whole=1"') == 1 + replaceable


def test_what_replaced_a_large_payload_is_told_shortly(collector: Collector, client: Client) -> None:
    collector.refuse = refusing("bad", error_class=ErrorClass.PERMANENT)
    with transaction.atomic():
        publish(new("bad", payload={"email": "x" * 50_000 + "the end"}))
    relay_until_idle()
    address = f"/admin/outbox/delivery/{Delivery.objects.get().pk}"

    client.post(f"{address}/do/replace/", {"payload": '{"email": "small@example.com"}', "reason": "large"})
    page = client.get(f"{address}/change/").content.decode()

    assert ">small@example.com</td>" in page
    assert page.count("the end") == 0


def test_a_large_event_is_shown_when_asked_for(collector: Collector, client: Client) -> None:
    with transaction.atomic():
        event = publish(new("a", payload={"text": "x" * 50_000 + "the end"}))
    address = f"/admin/outbox/storedevent/{event}/change/"

    first, whole = (client.get(address, more).content.decode() for more in ({}, {"whole": "1"}))

    assert ("the end" in first, "the end" in whole) == (False, True)


def test_it_says_that_its_list_is_of_failures(client: Client) -> None:
    page = client.get("/admin/outbox/delivery/").content.decode()

    assert "<h1>Failed deliveries</h1>" in page
    assert "No delivery has failed. What went through at once is not listed" in page
    assert ">Failed deliveries</a>" in client.get("/admin/").content.decode()
