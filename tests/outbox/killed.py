"""Relays in processes of their own whose subscriber kills them, by SIGKILL, on some events.

``python -m tests.outbox.killed FILE``: what goes through is appended to FILE, one ``aggregate sequence`` a line. One
relay after the other is forked until one ends in good order; how each ended is printed.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Sequence

from outbox.events import Event
from outbox.subscribers import Deadline, Failure, Subscriber


class Fragile(Subscriber):
    name = "fragile"
    ladder = (0.0,)
    call_seconds = 1.0
    path = ""

    def deliver(self, events: Sequence[Event], deadline: Deadline) -> list[Failure]:
        if any(event.payload.get("kills") for event in events):
            os.kill(os.getpid(), signal.SIGKILL)
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.write(file, "".join(f"{event.aggregate_id} {event.sequence}\n" for event in events).encode())
        os.close(file)
        return []


def main() -> None:
    import django

    django.setup()
    from django.db import connection

    from outbox.models import Detour, Lane
    from outbox.relay import relay_until_idle
    from outbox.subscribers import subscribers

    (fragile,) = subscribers()
    fragile.path = sys.argv[1]  # type: ignore[attr-defined]
    endings: list[int] = []
    while not endings or (endings[-1] != 0 and len(endings) < 40):
        connection.close()
        pid = os.fork()
        if not pid:
            relay_until_idle()
            os._exit(0)
        endings.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        # As if the dead one's leases had run out: half a minute each time otherwise.
        Lane.objects.update(lease_until="2000-01-01T00:00Z")
        Detour.objects.filter(due__isnull=False).update(due="2000-01-01T00:00Z")
    print(json.dumps(endings))


if __name__ == "__main__":
    # Under the name by which the settings know it, and not as __main__ a second time.
    from tests.outbox.killed import main as run

    run()
