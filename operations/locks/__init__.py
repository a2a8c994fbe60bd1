"""Locks that several processes agree on: rows of PostgreSQL with a fencing token.

Redis has no part in them: what a lock protects is in PostgreSQL, and a lock that is kept elsewhere is lost at another
moment than the rows are (a failover, a flush, a pause). A holder that was suspended past its time is no danger: it
writes on the condition that its token is still the one in the row. While PostgreSQL is away no lock can be had, and
nothing could be written either.
"""
