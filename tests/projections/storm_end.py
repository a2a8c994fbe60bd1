"""Before and after a storm on a server of its own: ``python -m tests.projections.storm_end prepare|verify``."""

from __future__ import annotations

import json
import os
import sys
from typing import Any


def main(verb: str) -> int:
    import django

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "zenskar.settings")
    django.setup()
    from django.conf import settings

    from tests.projections.storm import PROJECTIONS

    settings.PROJECTIONS = PROJECTIONS
    if verb == "prepare":
        prepare()
    else:
        print(json.dumps(verify()))
    return 0


def prepare() -> None:
    """All tables, and those of the read models."""
    from django.core.management import call_command
    from django.db import connection

    from tests.projections.models_of_tests import SHAPES

    call_command("migrate", verbosity=0)
    with connection.cursor() as cursor:
        cursor.execute(SHAPES)


def verify() -> dict[str, Any]:
    """Apply what is left over, and compare every build that is kept up to date with what follows from the log."""
    from outbox.models import StoredEvent
    from projections.models import Build
    from projections.models.build import FED
    from projections.runner import projections_run_once
    from projections.verifying import projection_verify

    Build.objects.update(lease_until="2000-01-01T00:00Z")
    while projections_run_once():
        pass
    builds = list(Build.objects.filter(state__in=FED))
    found = {build.pk: projection_verify(name=build.projection, build_id=build.pk) for build in builds}
    return {
        "builds": len(builds),
        "events": list(StoredEvent.objects.values_list("id", flat=True)),
        "differences": [f"{one.projection} {pk}: {each}" for pk, one in found.items() for each in one.differences],
        "counted_wrong": [
            f"{build}: {build.events_processed} counted, {found[build.pk].events} applied"
            for build in builds
            if build.events_processed != found[build.pk].events
        ],
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
