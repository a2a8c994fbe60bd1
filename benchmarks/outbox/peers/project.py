"""What the scripts of the peers share: a Django project around one app, the same events, and the sink.

Imported by the peers' own Python, where nothing of the product is.
"""

import json
import os
import random
import sys
import time
import urllib.parse

PAYLOAD = json.loads(os.environ["PEER_PAYLOAD"])
URL = os.environ["PEER_DATABASE_URL"]
last = {}
counts = {"events": 0, "inversions": 0}


def keys():
    """The kind and number that the arguments ask for, as ``benchmarks.outbox.load`` has them."""
    kind, count = sys.argv[1], int(sys.argv[2])
    dice = random.Random(7)
    return [f"c{dice.randrange({'uniform': 1000, 'hot': 20}[kind])}" for _ in range(count)]


def events():
    """Key, number and payload of each."""
    return [(key, number, {**PAYLOAD, "key": key, "number": number}) for number, key in enumerate(keys())]


def take(payload):
    """The sink: into nothing, but for a look at the order."""
    key, number = payload["key"], payload["number"]
    counts["events"] += 1
    if number < last.get(key, -1):
        counts["inversions"] += 1
    last[key] = number


def django_project(app, *more, **settings_):
    """Set Django up around one app and migrate."""
    import django
    from django.conf import settings

    url = urllib.parse.urlsplit(URL)
    settings.configure(
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.postgresql",
                "NAME": url.path[1:],
                "HOST": url.hostname,
                "PORT": url.port,
                "USER": url.username,
                "PASSWORD": urllib.parse.unquote(url.password or ""),
                "CONN_MAX_AGE": None,
            }
        },
        INSTALLED_APPS=[*more, app],
        USE_TZ=True,
        SECRET_KEY="x",
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        LOGGING_CONFIG=None,
        **settings_,
    )
    django.setup()
    from django.core.management import call_command

    call_command("migrate", verbosity=0)


def settle():
    """What autovacuum and the checkpointer would do in the middle of a run."""
    import psycopg

    with psycopg.connect(URL, autocommit=True) as session:
        session.execute("VACUUM ANALYZE")
        session.execute("CHECKPOINT")


def measured(drain):
    """Drain, and say what came of it."""
    started = time.perf_counter()
    drain()
    seconds = time.perf_counter() - started
    print(json.dumps({**counts, "seconds": seconds}))
