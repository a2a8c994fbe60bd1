"""Object ids that look like Stripe's: a prefix and random letters and digits."""

from __future__ import annotations

import random
import secrets
import string

_ALPHABET = string.ascii_letters + string.digits
_LENGTHS = {"cus": 14, "req": 14, "evt": 24, "sub": 24, "si": 14, "we": 24, "acct": 16, "whsec": 32, "price": 24}


class IdSource:
    """Random ids; with ``seed`` the same ones every time."""

    def __init__(self, seed: int | None = None) -> None:
        self._random = random.Random(seed)  # noqa: S311 - ids are no secrets
        self._seeded = seed is not None

    def new(self, prefix: str) -> str:
        if prefix == "whsec" and not self._seeded:
            return f"whsec_{secrets.token_hex(16)}"
        return f"{prefix}_{''.join(self._random.choices(_ALPHABET, k=_LENGTHS[prefix]))}"

    def invoice_prefix(self) -> str:
        return "".join(self._random.choices(string.ascii_uppercase + string.digits, k=8))
