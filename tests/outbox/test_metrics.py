from __future__ import annotations

import os
import time
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from prometheus_client.parser import text_string_to_metric_families

from operations.metrics import metrics_page
from outbox.errors import ErrorClass
from outbox.gates import breaker_close, breaker_open
from outbox.kafka import KafkaSubscriber
from outbox.relay import relay_until_idle
from outbox.subscriptions import subscription_pause, subscription_resume
from outbox.tally import Tally
from tests.outbox.collecting import Collector, refusing
from tests.outbox.conftest import only, publish_all
from tests.sandbox.process_table import eventually

pytestmark = pytest.mark.feature("D7")

# A tenth of a second on ten million rows, seen with this number of them.
ROWS = int(os.environ.get("METRICS_TEST_ROWS", "30000"))

FILL_SQL = """
WITH written AS (
  INSERT INTO outbox_event (uid, lane, topic, type, aggregate_type, aggregate_id, sequence, schema_version,
                            payload, headers, origin, correlation_id, causation_id, traceparent, created_at)
  SELECT gen_random_uuid(), g %% 64, 'topic-' || g %% 5, 't', 'filled', %(start)s + g, 1, 1, '{}', '{}', '', '', '',
         '', now() FROM generate_series(1, %(rows)s) AS g RETURNING id, lane
), logged AS (
  INSERT INTO outbox_log (event_id, lane) SELECT id, lane FROM written
)
INSERT INTO outbox_delivery (subscription_id, event_id, position, lane, topic, type, aggregate_type, aggregate_id,
                             sequence, envelope, state, attempts, error_class, code, message, traceback, fingerprint,
                             next_attempt_at)
SELECT 'collector', id, id, lane, 'topic-' || id %% 5, 't', 'filled', id, 1, '{}',
       CASE WHEN id %% 2 = 0 THEN 'dead' ELSE 'retrying' END, 1, 'retryable', 'c', 'm', '', 'f',
       CASE WHEN id %% 2 = 0 THEN NULL ELSE now() END
  FROM written
"""


def samples() -> dict[tuple[str, ...], float]:
    """By name and the values of the labels in the order of their names, what Prometheus would read."""
    text, _ = metrics_page()
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def test_it_tells_all_of_its_figures_by_subscriber_and_topic(collector: Collector) -> None:
    collector.refuse = refusing("bad")
    publish_all("bad", "good", "good")
    relay_until_idle()
    publish_all("later")

    found = samples()

    assert found["zenskar_outbox_pending_events", "collector", "customers"] == 1
    assert found["zenskar_outbox_failed_events", "dead", "collector", "customers"] == 1
    assert found["zenskar_outbox_processed_total", "collector", "customers"] == 2
    assert found["zenskar_outbox_errors_total", "collector", "customers"] == 3
    assert found["zenskar_outbox_retries_total", "collector", "customers"] == 2
    calls = found["zenskar_outbox_processing_duration_seconds_count", "collector"]
    assert calls == len(collector.calls)
    assert found["zenskar_outbox_processing_duration_seconds_bucket", "+Inf", "collector"] == calls
    assert found["zenskar_outbox_processing_duration_seconds_sum", "collector"] > 0
    assert found["zenskar_outbox_lag_seconds", "collector"] > 0


def test_it_adds_up_the_durations_of_all_workers(collector: Collector) -> None:
    one, other = Tally("collector"), Tally("collector")
    for seconds in (0.001, 0.002, 7.0):
        one.took(seconds)
    other.took(0.002)
    other.took(100.0)

    one.write()
    other.write()
    other.write()

    found = samples()
    name = "zenskar_outbox_processing_duration_seconds"
    bars = {bound: found[f"{name}_bucket", bound, "collector"] for bound in ("0.001", "0.0025", "5.0", "10.0", "+Inf")}
    assert bars == {"0.001": 1, "0.0025": 3, "5.0": 3, "10.0": 4, "+Inf": 5}
    assert found[f"{name}_sum", "collector"] == pytest.approx(107.005)


def test_it_says_whether_kafka_is_there(transactional_db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ("zenskar_kafka_connected",) not in samples()
    only(monkeypatch, KafkaSubscriber())

    seen = [samples()["zenskar_kafka_connected",]]
    breaker_open("kafka", message="nobody answers")
    seen.append(samples()["zenskar_kafka_connected",])
    breaker_close("kafka")
    seen.append(samples()["zenskar_kafka_connected",])
    subscription_pause(name="kafka", reason="kafka_denied: no")
    seen.append(samples()["zenskar_kafka_connected",])
    subscription_resume(name="kafka")
    subscription_pause(name="kafka", reason="maintenance", actor="user:ann")
    seen.append(samples()["zenskar_kafka_connected",])

    assert seen == [1, 0, 1, 0, 1]


def test_it_says_when_the_other_side_is_away(collector: Collector) -> None:
    collector.refuse = refusing("a", error_class=ErrorClass.OUTAGE)
    publish_all("a")

    relay_until_idle()

    assert samples()["zenskar_outbox_breaker_open", "collector"] == 1


def test_its_cost_does_not_grow_with_the_log(collector: Collector) -> None:
    fill(ROWS)
    few = cost()
    fill(ROWS)
    many = cost()

    assert few.keys() == many.keys()
    # A few pages more: indexes are deeper by then, and rows lie on other pages.
    assert {sql: pages for sql, pages in many.items() if pages > few[sql] * 1.2 + 50} == {}


def fill(rows: int) -> None:
    """Events that all wait, and as many open failures."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM outbox_event")
        cursor.execute(FILL_SQL, {"start": cursor.fetchone()[0], "rows": rows})
        cursor.execute("ANALYZE outbox_event; ANALYZE outbox_log; ANALYZE outbox_delivery")
    vacuum()


def vacuum() -> None:
    """As autovacuum would have done meanwhile."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent IN (%s::regclass, %s::regclass)",
            ["outbox_event", "outbox_log"],
        )
        for name in ("outbox_delivery", *(row[0] for row in cursor.fetchall())):
            assert eventually(lambda name=name: _vacuumed(cursor, name)), name  # type: ignore[misc]


def _vacuumed(cursor: Any, name: str) -> bool:
    """Whether nearly all of a table is known as visible to all; not while somebody (an ANALYZE) looks back."""
    cursor.execute(f"VACUUM {name}")
    cursor.execute("SELECT relallvisible >= relpages * 0.9 FROM pg_class WHERE oid = %s::regclass", [name])
    return bool(cursor.fetchone()[0])


def cost() -> dict[str, float]:
    """By query of the log's figures, how many pages it looks at."""
    metrics_page()
    began = time.monotonic()
    with CaptureQueriesContext(connection) as queries:
        metrics_page()
    print(f"{ROWS} rows: {time.monotonic() - began:.3f} s for the page")  # for whoever measures, with -s
    found: dict[str, float] = {}
    for query in queries:
        sql = query["sql"]
        if "outbox_" in sql and not sql.lstrip().startswith(("SET", "EXPLAIN")):
            with connection.cursor() as cursor:
                cursor.execute("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + sql.replace("%", "%%"))
                (plan,) = cursor.fetchone()[0]
            found[sql] = pages(plan)
            print(f"{plan['Execution Time']:8.1f} ms {found[sql]:8.0f} pages {sql[:90]!r}")
    return found


def pages(plan: Any) -> float:
    return float(plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"])
