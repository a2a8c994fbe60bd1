"""What can go wrong between us and PostgreSQL, as types."""

from __future__ import annotations

from django.db import OperationalError


class ConnectionLost(OperationalError):
    """The connection was lost inside the transaction, which therefore did not commit."""
