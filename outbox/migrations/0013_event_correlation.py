from django.db import migrations, models

NAME = "outbox_event_correlation"
COLUMNS = "(correlation_id, id) WHERE NOT (correlation_id = '')"

# CONCURRENTLY works on one partition at a time: the index of the whole is made invalid, and turns valid when each
# partition's was built, without a lock on its writers, and attached. Partitions made meanwhile bring theirs along.
PARTITIONS_SQL = """
SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
 WHERE i.inhparent = 'outbox_event'::regclass
   AND NOT EXISTS (SELECT FROM pg_index x JOIN pg_inherits a ON a.inhrelid = x.indexrelid
                    WHERE x.indrelid = c.oid AND a.inhparent = to_regclass(%s))
 ORDER BY c.relname
"""
INVALID_SQL = "SELECT EXISTS (SELECT FROM pg_index WHERE indexrelid = to_regclass(%s) AND NOT indisvalid)"


def index_build(apps, schema_editor):
    with schema_editor.connection.cursor() as cursor:
        cursor.execute(f"CREATE INDEX IF NOT EXISTS {NAME} ON ONLY outbox_event {COLUMNS}")
        cursor.execute(PARTITIONS_SQL, [NAME])
        for (partition,) in cursor.fetchall():
            name = f"{partition}_correlation"
            cursor.execute(INVALID_SQL, [name])
            if cursor.fetchone()[0]:
                # Of an attempt that was cut off.
                cursor.execute(f'DROP INDEX CONCURRENTLY "{name}"')
            cursor.execute(f'CREATE INDEX CONCURRENTLY IF NOT EXISTS "{name}" ON "{partition}" {COLUMNS}')
            cursor.execute(f'ALTER INDEX {NAME} ATTACH PARTITION "{name}"')


def index_drop(apps, schema_editor):
    with schema_editor.connection.cursor() as cursor:
        cursor.execute(f"DROP INDEX IF EXISTS {NAME}")


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("outbox", "0012_given_up")]

    operations = [
        migrations.SeparateDatabaseAndState(
            state_operations=[
                migrations.AddIndex(
                    model_name="storedevent",
                    index=models.Index(
                        fields=["correlation_id", "id"],
                        condition=models.Q(("correlation_id", ""), _negated=True),
                        name=NAME,
                    ),
                )
            ],
            database_operations=[migrations.RunPython(index_build, index_drop)],
        )
    ]
