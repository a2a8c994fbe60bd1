from __future__ import annotations

from tests.operations.conftest import api, issued, staff_client

__all__ = ["api", "issued", "staff_client"]
