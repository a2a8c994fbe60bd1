from __future__ import annotations

from customers.models.customer import Customer
from customers.models.imports import ImportRun

__all__ = ["Customer", "ImportRun"]
