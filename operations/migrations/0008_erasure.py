from __future__ import annotations

from django.db import migrations

# An erasure says so, and may change the details of entries; who did what, when and to what stays as it was written.
LET_IN = """
CREATE OR REPLACE FUNCTION operations_audit_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' AND current_setting('zenskar.audit_retention', true) = 'on' THEN
        RETURN NULL;
    END IF;
    IF TG_OP = 'UPDATE' AND current_setting('zenskar.erasure', true) = 'on' THEN
        RETURN NULL;
    END IF;
    RAISE EXCEPTION 'audit entries are only ever added' USING ERRCODE = 'restrict_violation';
END $$;
CREATE FUNCTION operations_audit_keep_facts() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (NEW.id, NEW.at, NEW.actor, NEW.action, NEW.target, NEW.correlation_id)
       IS DISTINCT FROM (OLD.id, OLD.at, OLD.actor, OLD.action, OLD.target, OLD.correlation_id) THEN
        RAISE EXCEPTION 'an erasure changes the details of audit entries alone' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER operations_audit_facts BEFORE UPDATE ON operations_auditentry
    FOR EACH ROW EXECUTE FUNCTION operations_audit_keep_facts();
"""
KEEP_OUT = """
DROP TRIGGER operations_audit_facts ON operations_auditentry;
DROP FUNCTION operations_audit_keep_facts();
CREATE OR REPLACE FUNCTION operations_audit_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' AND current_setting('zenskar.audit_retention', true) = 'on' THEN
        RETURN NULL;
    END IF;
    RAISE EXCEPTION 'audit entries are only ever added' USING ERRCODE = 'restrict_violation';
END $$;
"""


class Migration(migrations.Migration):
    dependencies = [("operations", "0007_idempotency")]

    operations = [migrations.RunSQL(LET_IN, KEEP_OUT)]
