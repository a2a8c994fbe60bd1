"""Web processes that are killed, by SIGKILL, in the middle of a protected create.

``python -m tests.customers.sagas.killed AUTHORIZATION``: one process after the other is forked, and each is killed at
another boundary of its create; the last one comes to its end. How each ended is printed.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from functools import partial

# After the lease, with the request frozen, with Stripe's answer, with it written down, after the end, and never.
BOUNDARIES = ("begun", "taken", "decided", "answered", "remote stripe done", "finished", "never")


def main() -> None:
    import django

    django.setup()
    from django.db import connection
    from django.test import Client
    from django.urls import get_resolver

    import customers.stripe.integration  # noqa: F401 - once, instead of in each process
    from customers.sagas import places
    from customers.sagas.running import saga_run

    endings: list[int] = []
    assert get_resolver().url_patterns
    for number, boundary in enumerate(BOUNDARIES, 1):
        connection.close()
        pid = os.fork()
        if not pid:

            def die(name: str, boundary: str = boundary) -> None:
                if name == boundary:
                    os.kill(os.getpid(), signal.SIGKILL)

            places.saga_run = partial(saga_run, on_step=die)  # type: ignore[assignment]
            client = Client(headers={"Authorization": sys.argv[1], "X-Use-Integrity-Protection": "true"})
            answer = client.post(
                "/api/v1/customers/",
                {"name": f"Ada {number}"},
                content_type="application/json",
                headers={"Idempotency-Key": f"k{number}"},
            )
            os._exit(0 if answer.status_code == 201 else 1)
        endings.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    print(json.dumps(endings))


if __name__ == "__main__":
    main()
