from __future__ import annotations

from customers.models.customer import Customer

__all__ = ["Customer"]
