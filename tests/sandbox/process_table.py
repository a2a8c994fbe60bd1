"""What the operating system says of running processes: a test's own view, apart from the code that it tests."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Collection


def running() -> dict[int, int]:
    """Process id → its parent's; what is dead and not yet collected is left out."""
    answer = subprocess.run(["ps", "-eo", "pid=,ppid=,stat="], capture_output=True, text=True, check=True)
    lines = (line.split() for line in answer.stdout.splitlines())
    return {int(pid): int(parent) for pid, parent, state in lines if not state.startswith("Z")}


def descendants(pid: int) -> set[int]:
    """All children of a process, and theirs."""
    parents = running()
    found: set[int] = set()
    waiting = {pid}
    while waiting:
        waiting = {child for child, parent in parents.items() if parent in waiting} - found
        found |= waiting
    return found


def mentioning(text: str) -> list[str]:
    """Command lines that hold the text."""
    answer = subprocess.run(["ps", "-eww", "-o", "stat=,args="], capture_output=True, text=True, check=True)
    lines = (line.strip().split(maxsplit=1) for line in answer.stdout.splitlines())
    return [words[1] for words in lines if len(words) == 2 and text in words[1] and not words[0].startswith("Z")]


def left_of(pids: Collection[int]) -> set[int]:
    return set(pids) & running().keys()


def eventually(condition: Callable[[], bool], *, timeout: float = 60.0) -> bool:
    """Whether the condition comes true within the time."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
