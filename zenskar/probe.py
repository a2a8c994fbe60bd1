"""``python -m zenskar.probe web|worker|relay|beat|consumer``: whether the process beside it works, for an orchestrator.

Runs in the container of the process that it asks about; exit status 0 means yes. It looks at what the process leaves
behind (an answer, a reply, a row), not at whether it exists: a process that hangs exists too.
"""

from __future__ import annotations

import os
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Callable

TIMEOUT = 4

RELAY_SQL = """
SELECT EXISTS (SELECT FROM outbox_relay
                WHERE starts_with(owner, %s) AND seen_at > clock_timestamp() - interval '1 minute')
"""

# Workers say every few seconds how far they are behind; one that has no partition says nothing.
CONSUMER_SQL = """
SELECT EXISTS (SELECT FROM outbox_inbox_partition
                WHERE starts_with(reported_by, %s) AND reported_at > clock_timestamp() - interval '1 minute')
"""

# Beat writes its last runs down every three minutes.
BEAT_SQL = """
SELECT EXISTS (SELECT FROM django_celery_beat_periodictask
                WHERE last_run_at > clock_timestamp() - interval '5 minutes')
"""


def web() -> bool:
    """The web server answers /livez, which depends on nothing else."""
    url = f"http://127.0.0.1:{os.environ.get('PORT', '8000')}/livez"
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as response:
            return bool(response.status == 200)
    except urllib.error.HTTPError as exc:
        # It answers, only not to this host name.
        return exc.code < 500
    except OSError:
        return False


def worker() -> bool:
    """The Celery worker of this host replies to a ping."""
    from zenskar.celery import app

    return bool(app.control.inspect(destination=[f"celery@{socket.gethostname()}"], timeout=TIMEOUT).ping())


def relay() -> bool:
    """A relay of this host was seen at work within the last minute."""
    return _exists(RELAY_SQL, [f"{socket.gethostname()[:60]}:"])


def consumer() -> bool:
    """A consumer of Kafka on this host read one of its partitions within the last minute."""
    return _exists(CONSUMER_SQL, [f"{socket.gethostname()[:60]}:"])


def beat() -> bool:
    """Periodic tasks were started within the last minutes."""
    return _exists(BEAT_SQL, [])


def _exists(query: str, parameters: list[str]) -> bool:
    import django

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "zenskar.settings")
    django.setup()
    from django.db import Error, connection

    try:
        with connection.cursor() as cursor:
            cursor.execute(query, parameters)
            row = cursor.fetchone()
    except Error:
        return False
    return bool(row and row[0])


PROBES: dict[str, Callable[[], bool]] = {
    "web": web,
    "worker": worker,
    "relay": relay,
    "beat": beat,
    "consumer": consumer,
}


def main(arguments: list[str]) -> int:
    if len(arguments) != 1 or arguments[0] not in PROBES:
        sys.stderr.write(f"usage: python -m zenskar.probe {'|'.join(PROBES)}\n")
        return 2
    return 0 if PROBES[arguments[0]]() else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
