from __future__ import annotations

from customers.models.customer import Customer
from customers.models.imports import ImportRun
from customers.models.sync import (
    Conflict,
    Priority,
    SyncAccount,
    SyncRequest,
    SyncState,
    Webhook,
)

__all__ = ["Conflict", "Customer", "ImportRun", "Priority", "SyncAccount", "SyncRequest", "SyncState", "Webhook"]
