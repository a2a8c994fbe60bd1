"""Django settings of the measurements: one database under an alias for each way to connect to it."""

from __future__ import annotations

import os
from typing import Any

DJANGOS = "django.db.backends.postgresql"
OURS = "dbresilience.postgresql"


def _database(engine: str, pool: dict[str, Any] | bool | None, **more: Any) -> dict[str, Any]:
    options = {} if pool is None else {"pool": pool}
    return {
        "ENGINE": engine,
        "NAME": "zenskar",
        "USER": "zenskar",
        "HOST": "127.0.0.1",
        "PORT": os.environ["BENCHMARK_PORT"],
        "OPTIONS": options,
        **more,
    }


SIZES = {"min_size": 20, "max_size": 50}
WAYS = {
    "no_pool": _database(DJANGOS, None),
    "django_pool": _database(DJANGOS, SIZES),
    "django_pool_checked": _database(DJANGOS, SIZES, CONN_HEALTH_CHECKS=True),
    "ours": _database(OURS, None),
}
DATABASES = WAYS | {"default": WAYS[os.environ.get("BENCHMARK_WAY", "ours")]}
# As in a project that has it installed: every statement is observed.
INSTALLED_APPS = ["django.contrib.contenttypes", "dbresilience"]
# Nothing is written down: there are no tables, and the other ways write nothing either.
DB_STATISTICS_INTERVAL = 0
SECRET_KEY = "benchmarks"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
