"""Where Django's admin looks for pages; they are in ``outbox.console``."""

from __future__ import annotations

from outbox.console import consumed, deliveries, records, subscribers

__all__ = ["consumed", "deliveries", "records", "subscribers"]
