from __future__ import annotations

from django.db import migrations

# An erasure says so, and may change the texts of attempts; which, when, how long and how it ended stays.
LET_IN = """
CREATE OR REPLACE FUNCTION outbox_attempt_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' AND current_setting('zenskar.attempt_retention', true) = 'on' THEN
        RETURN NULL;
    END IF;
    IF TG_OP = 'UPDATE' AND current_setting('zenskar.erasure', true) = 'on' THEN
        RETURN NULL;
    END IF;
    RAISE EXCEPTION 'attempts are only ever added' USING ERRCODE = 'restrict_violation';
END $$;
CREATE FUNCTION outbox_attempt_keep_facts() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (NEW.id, NEW.subscriber, NEW.event_id, NEW.number, NEW.outcome, NEW.error_class, NEW.code, NEW.worker,
        NEW.started_at, NEW.seconds)
       IS DISTINCT FROM (OLD.id, OLD.subscriber, OLD.event_id, OLD.number, OLD.outcome, OLD.error_class, OLD.code,
        OLD.worker, OLD.started_at, OLD.seconds) THEN
        RAISE EXCEPTION 'an erasure changes the texts of attempts alone' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER outbox_attempt_facts BEFORE UPDATE ON outbox_attempt
    FOR EACH ROW EXECUTE FUNCTION outbox_attempt_keep_facts();
"""
KEEP_OUT = """
DROP TRIGGER outbox_attempt_facts ON outbox_attempt;
DROP FUNCTION outbox_attempt_keep_facts();
CREATE OR REPLACE FUNCTION outbox_attempt_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' AND current_setting('zenskar.attempt_retention', true) = 'on' THEN
        RETURN NULL;
    END IF;
    RAISE EXCEPTION 'attempts are only ever added' USING ERRCODE = 'restrict_violation';
END $$;
"""


class Migration(migrations.Migration):
    dependencies = [("outbox", "0009_queued_index")]

    operations = [migrations.RunSQL(LET_IN, KEEP_OUT)]
