"""Works through what is due for a while, in a process of its own.

``python -m tests.customers.stripe.working SECONDS``: it begins when its standard input is closed, so that several
begin together.
"""

from __future__ import annotations

import sys
import time


def main() -> None:
    import django

    django.setup()

    from customers.integrations import integrations
    from customers.sync.runner import sync_due_once

    # Those that work for days do not begin by importing what calls need.
    assert integrations()
    print("ready", flush=True)
    sys.stdin.read()
    ends = time.monotonic() + float(sys.argv[1])
    while (left := ends - time.monotonic()) > 0:
        sync_due_once(budget=min(5.0, left))


if __name__ == "__main__":
    main()
