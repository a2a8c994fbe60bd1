"""Takes tokens of one bucket for a while, in a process of its own, and prints when it got them.

``python -m tests.customers.sync.taking RATE SECONDS PRIORITY``: it begins when its standard input is closed, so that
several begin together.
"""

from __future__ import annotations

import json
import sys
import time


def main() -> None:
    import django

    django.setup()
    from django.db import connection

    from customers.sync.ratelimit import Gate, NoToken
    from tests.customers.sync.memory import MemoryIntegration

    integration = MemoryIntegration()
    integration.rate = float(sys.argv[1])
    gate = Gate(integration)
    connection.ensure_connection()
    print("ready", flush=True)
    sys.stdin.read()
    taken: list[float] = []
    ends = time.monotonic() + float(sys.argv[2])
    while time.monotonic() < ends:
        try:
            gate.take(int(sys.argv[3]), patience=1)
        except NoToken:
            continue
        # One clock for all processes of a machine.
        taken.append(time.monotonic())
    print(json.dumps(taken))


if __name__ == "__main__":
    main()
