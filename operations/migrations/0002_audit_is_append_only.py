from __future__ import annotations

from django.db import migrations

# Statement-level, so that it also refuses a statement that would have touched no row. TRUNCATE is not covered: it needs
# the rights of the table's owner, who could drop the trigger too.
REFUSE = """
CREATE FUNCTION operations_audit_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' AND current_setting('zenskar.audit_retention', true) = 'on' THEN
        RETURN NULL;
    END IF;
    RAISE EXCEPTION 'audit entries are only ever added' USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER operations_audit_append_only BEFORE UPDATE OR DELETE ON operations_auditentry
    FOR EACH STATEMENT EXECUTE FUNCTION operations_audit_refuse_change();
"""
ALLOW = """
DROP TRIGGER operations_audit_append_only ON operations_auditentry;
DROP FUNCTION operations_audit_refuse_change();
"""


class Migration(migrations.Migration):
    dependencies = [("operations", "0001_initial")]

    operations = [migrations.RunSQL(REFUSE, ALLOW)]
