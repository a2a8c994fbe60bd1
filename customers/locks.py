"""What is locked of customers, by name (see ``operations.locks``).

Uniqueness is a constraint and a row is locked by ``FOR UPDATE``; a lock has to hold where neither reaches: over the
calls of a protected change, and over the run of a maintenance job.
"""

from __future__ import annotations

import hashlib
from typing import Final
from uuid import UUID

from operations.locks.rows import LockName

CUSTOMER: Final = "customer"
EMAIL: Final = "email"
INTEGRATION: Final = "integration"


def customer_lock(customer_id: UUID) -> LockName:
    """Held while a protected change of the customer is under way: nobody else changes the customer."""
    return LockName(CUSTOMER, str(customer_id))


def email_lock(email: str) -> LockName:
    """Held while a protected change is about to give a customer this e-mail: nobody else takes it."""
    return LockName(EMAIL, email_key(email))


def email_key(email: str) -> str:
    """A digest of the address in any case: names of locks are seen by more people than customers are."""
    return hashlib.sha256(email.lower().encode()).hexdigest()
