"""The console's pages of this app; Django finds them by importing this package."""

from __future__ import annotations

from customers.admin import customers, erasures, imports

__all__ = ["customers", "erasures", "imports"]
