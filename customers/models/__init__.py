from __future__ import annotations

from customers.models.conflicts import Conflict
from customers.models.customer import Customer
from customers.models.drift import Drift, ReconcileRun, ReconcileSeen
from customers.models.erasure import Erasure
from customers.models.imports import ImportRun
from customers.models.readmodels import ActivityDay, ActivityShape, DirectoryEntry, DirectoryShape
from customers.models.sagas import Saga, SagaStep
from customers.models.sync import Priority, SyncAccount, SyncState
from customers.models.sync_requests import SyncRequest
from customers.models.webhooks import Webhook

__all__ = [
    "ActivityDay",
    "ActivityShape",
    "Conflict",
    "Customer",
    "DirectoryEntry",
    "DirectoryShape",
    "Drift",
    "Erasure",
    "ImportRun",
    "Priority",
    "ReconcileRun",
    "ReconcileSeen",
    "Saga",
    "SagaStep",
    "SyncAccount",
    "SyncRequest",
    "SyncState",
    "Webhook",
]
