"""A Stripe sandbox in a process of its own, and what is asked and told it beside the calls that are measured."""

from __future__ import annotations

import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import requests

from zenskar.sandbox import processes
from zenskar.sandbox.stripe.core import DEFAULT_KEY

ROOT: Final = Path(__file__).resolve().parents[2]
_HEADERS: Final = {"Authorization": f"Bearer {DEFAULT_KEY}"}


def sandbox_started(stack: ExitStack) -> str:
    """Start one, which the stack stops again; its address."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="zenskar-bench-")))
    command = [sys.executable, "-m", "zenskar.sandbox.stripe", "--port", "0"]
    process = processes.start(command, log=folder / "stripe.log", cwd=ROOT)
    stack.callback(processes.stop, process)
    for _ in range(200):
        said = (folder / "stripe.log").read_text()
        if "stripe sandbox: http" in said:
            return said.partition("stripe sandbox: ")[2].split()[0]
        time.sleep(0.05)
    raise SystemExit(said)


def sandbox_told(address: str, action: str, document: dict[str, Any]) -> None:
    """Tell it to do something, by its control API."""
    requests.post(f"{address}/_sandbox/{action}", json=document, headers=_HEADERS, timeout=60).raise_for_status()


def sandbox_asked(address: str, what: str) -> dict[str, Any]:
    """Ask it for something, by its control API."""
    answer = requests.get(f"{address}/_sandbox/{what}", headers=_HEADERS, timeout=60)
    answer.raise_for_status()
    found: dict[str, Any] = answer.json()
    return found
