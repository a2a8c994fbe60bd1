"""What is to happen to coming webhooks instead of a plain delivery."""

from __future__ import annotations

from dataclasses import dataclass

EFFECTS = ("duplicate", "delay", "drop", "tamper", "old_timestamp", "future_timestamp", "wrong_secret")


@dataclass(kw_only=True)
class Script:
    """What happens to the next ``times`` deliveries of matching events (``seconds`` of delay, ``copies`` in all)."""

    effect: str
    type: str = "*"
    times: int | None = 1
    seconds: float = 0.0
    copies: int = 2

    def __post_init__(self) -> None:
        if self.effect not in EFFECTS:
            raise ValueError(f"effect is one of {', '.join(EFFECTS)}")
