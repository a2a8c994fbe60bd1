"""What ``make run`` prints: one line a step with its seconds, then where everything is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zenskar.sandbox.folder import Endpoints, SandboxFolder


@contextmanager
def step(what: str) -> Iterator[Callable[[str], None]]:
    """Print ``what`` with the seconds that the body took; the body may say more by calling what it is given."""
    begun = time.monotonic()
    said = ""

    def done(text: str) -> None:
        nonlocal said
        said = f": {text}"

    yield done
    print(f"{time.monotonic() - begun:6.1f} s {what}{said}", flush=True)


def print_addresses(endpoints: Endpoints, started: list[str], folder: SandboxFolder) -> None:
    """Say where everything listens and how to log in."""
    web = endpoints["web"]
    rows = {
        "console": f"{web}/admin/   log in as {endpoints['admin_user']}, password {endpoints['admin_password']}",
        "API": f"{web}/api/v1/customers/   with the header  Authorization: {endpoints['authorization']}",
        "API docs": f"{web}/api/docs/",
        "Stripe": endpoints["stripe_api_base"] or "api.stripe.com",
        "Kafka": endpoints["kafka_bootstrap_servers"],
        "database": endpoints["database_url"],
        "Redis": endpoints["redis_url"],
        "all of this": str(folder.endpoints_file),
        "commands": f". {folder.shell_file}; .venv/bin/python manage.py help",
        "logs": str(folder.log("*")),
    }
    notes = {
        "stripe": ("Stripe", "a sandbox of ours; its page is there too"),
        "kafka": ("Kafka", "a mock: forgets its records when it stops"),
    }
    for name, (row, note) in notes.items():
        if name in started:
            rows[row] += f"   ({note})"
    print()
    for row, text in rows.items():
        print(f"  {row:<12} {text}")
    print("\nCtrl-C stops all of it; the next start keeps the data; make clean forgets it.", flush=True)
