"""Which history a session writes to, so that what was learnt of one is not believed of another."""

from __future__ import annotations

from typing import Final

# The cluster, the line that it writes its WAL on, and the database in it. The line changes with each standby that takes
# over and each restore to a point in time, the database with each restore of a dump. What pg_control_checkpoint() says
# of the line is the old one until the first checkpoint after a fail-over. A standby has no line of its own: 0.
HISTORY_SQL: Final = """
SELECT (SELECT system_identifier FROM pg_control_system()) || '/' ||
       CASE WHEN pg_is_in_recovery() THEN '0' ELSE left(pg_walfile_name(pg_current_wal_lsn()), 8) END || '/' ||
       (SELECT oid FROM pg_database WHERE datname = current_database())
"""
