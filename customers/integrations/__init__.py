"""What an integration is: another system that keeps customers too. Stripe is one; nothing here knows which.

An adapter subclasses ``Integration`` and is named in ``settings.INTEGRATIONS``. It speaks in **fields**: a flat
mapping such as ``{"name": "Ada", "email": "ada@example.com", "address": {"city": "Turin"}, "metadata.plan": "gold"}``
in which a value that is missing, null or empty is simply absent.
"""

from __future__ import annotations

from customers.integrations.adapter import Integration
from customers.integrations.configured import integration_get, integrations
from customers.integrations.errors import (
    ConfigurationError,
    IntegrationError,
    KeyMisused,
    PermanentError,
    PermissionMissing,
    RateLimited,
    RemoteMissing,
    RetryableError,
    Unreachable,
    WebhookRefused,
)
from customers.integrations.records import (
    Changes,
    Fields,
    Found,
    MessagePage,
    RecordPage,
    RemoteMessage,
    RemoteRecord,
    Value,
)

__all__ = [
    "Changes",
    "ConfigurationError",
    "Fields",
    "Found",
    "Integration",
    "IntegrationError",
    "KeyMisused",
    "MessagePage",
    "PermanentError",
    "PermissionMissing",
    "RateLimited",
    "RecordPage",
    "RemoteMessage",
    "RemoteMissing",
    "RemoteRecord",
    "RetryableError",
    "Unreachable",
    "Value",
    "WebhookRefused",
    "integration_get",
    "integrations",
]
