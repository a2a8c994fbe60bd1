"""Faults on demand: which request, at which moment, how often, and what goes wrong.

``before``: the request never takes effect. ``after``: it took effect, and the caller does not hear of it.
"""

from __future__ import annotations

import random
import threading
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Any

EFFECTS = ("status", "lock_timeout", "reset", "hang", "delay", "late_commit")
PHASES = ("before", "after")


@dataclass(kw_only=True)
class Fault:
    """One rule.

    Arguments:
        route: pattern of ``METHOD /path``, such as ``POST /v1/customers`` or ``* /v1/customers/*``.
        effect: ``status`` answers ``status`` (429, 500, 503 …); ``lock_timeout`` answers 429 with that code; ``reset``
            resets the connection; ``hang`` holds it for ``seconds`` and closes it without an answer; ``delay`` answers
            rightly after ``seconds``; ``late_commit`` hangs, and the request takes effect ``seconds`` after it arrived.
        phase: before or after the request takes effect.
        times: how many matching requests it strikes; None for all.
        probability: chance to strike a matching request, drawn from the seeded generator.
        skip: matching requests to let pass first.
    """

    route: str = "*"
    effect: str = "status"
    phase: str = "before"
    status: int = 500
    seconds: float = 0.0
    times: int | None = 1
    probability: float = 1.0
    skip: int = 0
    struck: int = 0

    def __post_init__(self) -> None:
        if self.effect not in EFFECTS or self.phase not in PHASES:
            raise ValueError(f"effect is one of {', '.join(EFFECTS)}; phase is one of {', '.join(PHASES)}")
        if self.effect == "status" and not 400 <= self.status <= 599:
            raise ValueError("status is an error's: 400 to 599")
        if not 0 <= self.probability <= 1 or self.seconds < 0:
            raise ValueError("probability lies between 0 and 1, and seconds are not negative")


class Faults:
    """The rules in force, in order; the first that strikes wins."""

    def __init__(self, seed: int = 0) -> None:
        self._lock = threading.Lock()
        self._random = random.Random(seed)  # noqa: S311 - repeatable on purpose
        self._rules: list[Fault] = []

    def add(self, fault: Fault | None = None, **arguments: Any) -> Fault:
        """Add a rule, given whole or by Fault's arguments."""
        rule = fault if fault is not None else Fault(**arguments)
        with self._lock:
            self._rules.append(rule)
        return rule

    def remove(self, fault: Fault) -> None:
        with self._lock:
            self._rules = [rule for rule in self._rules if rule is not fault]

    def clear(self, *, seed: int | None = None) -> None:
        """Forget all rules; with ``seed`` start the generator anew."""
        with self._lock:
            self._rules.clear()
            if seed is not None:
                self._random.seed(seed)

    def strike(self, method: str, path: str) -> Fault | None:
        """The rule that strikes this request, counted as used."""
        with self._lock:
            for rule in self._rules:
                if not fnmatchcase(f"{method} {path}", rule.route):
                    continue
                if rule.times is not None and rule.struck >= rule.times:
                    continue
                if rule.skip > 0:
                    rule.skip -= 1
                    continue
                if rule.probability < 1 and self._random.random() >= rule.probability:
                    continue
                rule.struck += 1
                return rule
        return None

    def as_list(self) -> list[dict[str, Any]]:
        with self._lock:
            return [asdict(rule) for rule in self._rules]
