"""The questions that the monitor asks PostgreSQL (15 and later); each is bounded, and reads statistics alone."""

from __future__ import annotations

from typing import Final

# Serves server(): what does not change while it runs, and how far it is from its limits.
SERVER_SQL: Final = """
SELECT current_setting('server_version') AS version, pg_postmaster_start_time() AS started_at,
       pg_is_in_recovery() AS in_recovery, current_setting('max_connections')::int AS max_connections,
       (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend')::int AS client_connections
"""
# Serves connections(): sessions of this database, the monitor's own left out. "wait" is what an active one waits for.
CONNECTIONS_SQL: Final = """
SELECT coalesce(state, 'unknown') AS state, count(*)::int AS count,
       count(*) FILTER (WHERE wait_event_type = 'Lock')::int AS waiting_for_locks
  FROM pg_stat_activity
 WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
 GROUP BY 1 ORDER BY 1
"""
# Serves applications(): who holds them.
APPLICATIONS_SQL: Final = """
SELECT coalesce(nullif(application_name, ''), 'unnamed') AS application, usename AS "user",
       coalesce(host(client_addr), 'local') AS client, count(*)::int AS count
  FROM pg_stat_activity
 WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
 GROUP BY 1, 2, 3 ORDER BY count(*) DESC LIMIT 20
"""
# Serves long_transactions(): oldest first. What others run can be read by a member of pg_read_all_stats alone.
LONG_TRANSACTIONS_SQL: Final = """
SELECT pid, coalesce(nullif(application_name, ''), 'unnamed') AS application, state,
       round(extract(epoch FROM clock_timestamp() - xact_start)::numeric, 1)::float8 AS seconds,
       wait_event_type AS waits_for, query AS statement
  FROM pg_stat_activity
 WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
   AND xact_start < clock_timestamp() - make_interval(secs => %(seconds)s)
 ORDER BY xact_start LIMIT 20
"""
# Serves blocked_sessions(): who waits for a lock, longest first, and for whom.
BLOCKED_SQL: Final = """
SELECT a.pid, b.pids AS blocked_by, a.wait_event AS lock,
       round(extract(epoch FROM clock_timestamp() - a.state_change)::numeric, 1)::float8 AS seconds,
       coalesce(nullif(a.application_name, ''), 'unnamed') AS application, a.query AS statement,
       (SELECT coalesce(o.query, '') FROM pg_stat_activity o WHERE o.pid = b.pids[1]) AS blocking_statement,
       (SELECT o.state FROM pg_stat_activity o WHERE o.pid = b.pids[1]) AS blocking_state,
       (SELECT min(l.relation::regclass::text) FROM pg_locks l
         WHERE l.pid = a.pid AND l.relation IS NOT NULL AND l.mode <> 'AccessShareLock'
           AND l.locktype IN ('relation', 'tuple') AND l.database = (SELECT oid FROM pg_database WHERE datname =
               current_database()) AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indexrelid = l.relation)) AS relation
  FROM pg_stat_activity a CROSS JOIN LATERAL (SELECT pg_blocking_pids(a.pid) AS pids) b
 WHERE a.datname = current_database() AND a.wait_event_type = 'Lock' AND cardinality(b.pids) > 0
 ORDER BY a.state_change LIMIT 50
"""
# Serves activity(): counters of this database since they were last reset.
DATABASE_SQL: Final = """
SELECT xact_commit AS commits, xact_rollback AS rollbacks, blks_hit, blks_read, deadlocks, temp_bytes,
       conflicts, stats_reset, pg_database_size(datid) AS bytes,
       CASE WHEN blks_hit + blks_read > 0 THEN round(blks_hit::numeric / (blks_hit + blks_read), 4)::float8 END
         AS cache_hit_rate
  FROM pg_stat_database WHERE datname = current_database()
"""
# Serves transaction_ids(): how far the oldest unfrozen row is behind, of 2,147,483,647 at which the server stops.
XID_SQL: Final = """
SELECT max(age(datfrozenxid))::bigint AS age, current_setting('autovacuum_freeze_max_age')::bigint AS freeze_max_age
  FROM pg_database
"""
# Serves replication_slots(): what each keeps the server from deleting.
SLOTS_SQL: Final = """
SELECT slot_name AS name, slot_type AS type, active,
       pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END,
                       restart_lsn)::bigint AS retained_bytes
  FROM pg_replication_slots ORDER BY 4 DESC NULLS LAST LIMIT 50
"""
# Serves tables(): size, dead rows, and the share of the table that its rows would not need if it were written anew
# (estimated as "check_postgres" and PgHero do: rows times their average width from pg_stats, plus headers; a table that
# was never analysed has no estimate). Asking for a table's size waits for who holds it exclusively, and those that come
# later wait for who waits; so of such a table there is none. relpages is 0 until a table is first analysed.
TABLES_SQL: Final = """
WITH locked AS MATERIALIZED (
  SELECT relation FROM pg_locks WHERE locktype = 'relation' AND mode = 'AccessExclusiveLock' AND relation IS NOT NULL)
SELECT s.schemaname AS schema, s.relname AS "table",
       CASE WHEN s.relid NOT IN (SELECT relation FROM locked) THEN pg_table_size(s.relid) END AS bytes,
       s.n_live_tup AS live_rows,
       s.n_dead_tup AS dead_rows,
       CASE WHEN s.n_live_tup + s.n_dead_tup > 0
            THEN round(100.0 * s.n_dead_tup / (s.n_live_tup + s.n_dead_tup), 1)::float8 END AS dead_rows_percent,
       CASE WHEN c.reltuples >= 0 AND c.relpages > 0 AND w.width IS NOT NULL
            THEN round(100 * greatest(0, 1 - (c.reltuples * (w.width + 28) / 8168)::numeric / c.relpages), 1)::float8
       END AS bloat_percent,
       greatest(s.last_vacuum, s.last_autovacuum) AS vacuumed_at,
       greatest(s.last_analyze, s.last_autoanalyze) AS analysed_at
  FROM pg_stat_user_tables s JOIN pg_class c ON c.oid = s.relid
  LEFT JOIN LATERAL (SELECT sum(p.avg_width * (1 - p.null_frac)) AS width FROM pg_stats p
                      WHERE p.schemaname = s.schemaname AND p.tablename = s.relname) w ON true
 ORDER BY bytes DESC NULLS FIRST, s.n_dead_tup DESC LIMIT 20
"""
# Serves unused_indexes(): never read since the counters were reset, and no constraint needs them.
UNUSED_INDEXES_SQL: Final = """
SELECT s.schemaname AS schema, s.relname AS "table", s.indexrelname AS "index", pg_relation_size(s.indexrelid) AS bytes
  FROM pg_stat_user_indexes s JOIN pg_index i ON i.indexrelid = s.indexrelid
 WHERE s.idx_scan = 0 AND NOT i.indisunique AND NOT i.indisexclusion AND pg_relation_size(s.indexrelid) > 1048576
 ORDER BY 4 DESC LIMIT 20
"""
# Serves missing_indexes(): tables read from end to end again and again, and foreign keys whose columns no index begins
# with, on tables large enough for it to matter.
MISSING_INDEXES_SQL: Final = """
SELECT schemaname AS schema, relname AS "table", NULL::text AS columns, seq_scan AS scans,
       seq_tup_read / seq_scan AS rows_per_scan, 'read from end to end' AS reason
  FROM pg_stat_user_tables
 WHERE seq_scan > 50 AND n_live_tup > 10000 AND seq_tup_read / seq_scan > 5000 AND seq_scan > coalesce(idx_scan, 0)
UNION ALL
SELECT n.nspname, t.relname, (SELECT string_agg(a.attname, ', ' ORDER BY k.n)
                                FROM unnest(o.conkey) WITH ORDINALITY AS k(attnum, n)
                                JOIN pg_attribute a ON a.attrelid = o.conrelid AND a.attnum = k.attnum),
       NULL, NULL, 'foreign key without an index'
  FROM pg_constraint o JOIN pg_class t ON t.oid = o.conrelid JOIN pg_namespace n ON n.oid = t.relnamespace
 WHERE o.contype = 'f' AND t.reltuples > 10000 AND NOT EXISTS (
         SELECT FROM pg_index i WHERE i.indrelid = o.conrelid AND i.indisvalid
            AND (i.indkey::int2[])[0:cardinality(o.conkey) - 1] @> o.conkey)
 LIMIT 20
"""
# Serves slow_statements(): where pg_stat_statements is installed; null where it is not.
HAS_STATEMENTS_SQL: Final = (
    "SELECT extnamespace::regnamespace::text AS schema FROM pg_extension WHERE extname = 'pg_stat_statements'"
)
STATEMENTS_SQL: Final = """
SELECT s.query AS statement, s.calls, round(s.mean_exec_time::numeric, 3)::float8 AS mean_ms,
       round(s.max_exec_time::numeric, 3)::float8 AS max_ms, round(s.total_exec_time::numeric, 1)::float8 AS total_ms,
       s.rows
  FROM {view} s WHERE s.dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
 ORDER BY s.total_exec_time DESC LIMIT 20
"""
# Serves observed(): what our processes counted in a window. The condition on span serves whole spans: the window begins
# up to ten minutes early.
TALLIES_SQL: Final = """
SELECT name, key, sum(count)::bigint AS count, sum(microseconds)::bigint AS microseconds, max(slowest) AS slowest
  FROM dbresilience_tally WHERE span > clock_timestamp() - make_interval(secs => %(seconds)s) - interval '10 minutes'
 GROUP BY name, key
"""
VIOLATIONS_SQL: Final = """
SELECT kind, "table", columns, "constraint", sum(count)::bigint AS count, max(last_at) AS last_at
  FROM dbresilience_violationtally
 WHERE span > clock_timestamp() - make_interval(secs => %(seconds)s) - interval '10 minutes'
 GROUP BY 1, 2, 3, 4 ORDER BY sum(count) DESC LIMIT 50
"""
# Serves pools(): processes that reported within the last minute.
PROCESSES_SQL: Final = """
SELECT process, role, pools FROM dbresilience_processreport
 WHERE reported_at > clock_timestamp() - interval '60 seconds' ORDER BY process
"""
# Serves server_deadlocks(): the server's counter a day ago, or in the oldest sample there is. Counters start again at
# a reset, so only samples since the latest one count.
DEADLOCKS_BEFORE_SQL: Final = """
SELECT (figures->'database'->>'deadlocks')::bigint AS deadlocks, minute FROM dbresilience_sample
 WHERE minute > clock_timestamp() - make_interval(secs => %(seconds)s)
   AND figures->'database'->>'stats_reset' IS NOT DISTINCT FROM %(stats_reset)s
 ORDER BY minute LIMIT 1
"""
# Serves samples(): how long the history is, in minutes; the oldest one is found by the index on the minute.
SPAN_SQL: Final = """
SELECT extract(epoch FROM clock_timestamp() - min(minute))::float8 / 60 AS minutes FROM dbresilience_sample
 WHERE minute > clock_timestamp() - make_interval(secs => %(hours)s * 3600)
"""
# Serves samples(): one of each step, so that a week is as quick to draw as an hour.
SAMPLES_SQL: Final = """
SELECT DISTINCT ON (date_bin(%(step)s, minute, 'epoch')) minute, figures FROM dbresilience_sample
 WHERE minute > clock_timestamp() - make_interval(secs => %(hours)s * 3600)
 ORDER BY date_bin(%(step)s, minute, 'epoch'), minute
"""
