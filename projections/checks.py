"""System checks of the projections: what would build wrong rows is refused at start."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from outbox.conf import retention_settings
from outbox.ordered import DETAILS
from projections.beginning import has_bootstrap
from projections.conf import projection_settings
from projections.projection import Projection
from projections.registry import SETTING


@checks.register
def check_projections(**_: Any) -> list[checks.CheckMessage]:
    """PROJECTIONS lists importable projections, each version once, whose tables are theirs alone."""
    try:
        projection_settings()
    except ImproperlyConfigured as exc:
        return [checks.Error(str(exc), id="projections.E001")]
    found: list[checks.CheckMessage] = []
    versions: set[tuple[str, int]] = set()
    owners: dict[str, str] = {}
    for path in getattr(settings, SETTING, ()):
        try:
            projection = import_string(path)()
        except ImportError as exc:
            found.append(checks.Error(f"PROJECTIONS: {exc}", id="projections.E002"))
            continue
        if not isinstance(projection, Projection) or (projection.name, projection.version) in versions:
            hint = "Each entry is a subclass of projections.projection.Projection with a name and version of its own."
            found.append(checks.Error(f"PROJECTIONS: {path} cannot be used.", hint=hint, id="projections.E003"))
            continue
        versions.add((projection.name, projection.version))
        found += _table_errors(projection, owners)
        if projection.keyed_by and type(projection).forget is Projection.forget:
            hint = "Write forget(), which deletes the rows of an aggregate, or leave keyed_by out."
            found.append(
                checks.Error(f"{projection} is keyed and cannot forget a row.", hint=hint, id="projections.E005")
            )
        if unknown := (projection.reads or frozenset()) - frozenset(DETAILS):
            hint = f"reads may name {', '.join(DETAILS)}."
            text = f"{projection} reads {', '.join(sorted(unknown))}, which no event has."
            found.append(checks.Error(text, hint=hint, id="projections.E007"))
        found += _retention_warnings(projection)
    return found


def _retention_warnings(projection: Projection) -> list[checks.CheckMessage]:
    """A projection whose events are removed one day must be able to begin without them."""
    try:
        kept = retention_settings().topics
    except ImproperlyConfigured:
        # The outbox's own check says so.
        return []
    if has_bootstrap(projection) or not any(topic in kept or "*" in kept for topic in projection.topics):
        return []
    hint = "Write bootstrap(), which begins at the present state; without it there is no rebuild once events are gone."
    text = f"{projection} reads topics whose old events OUTBOX_RETENTION removes."
    return [checks.Warning(text, hint=hint, id="projections.W006")]


def _table_errors(projection: Projection, owners: dict[str, str]) -> list[checks.CheckMessage]:
    found: list[checks.CheckMessage] = []
    for table in projection.tables:
        owner = owners.setdefault(table.name, projection.name)
        if owner != projection.name:
            hint = "A table is written by one projection alone."
            text = f"{projection} and {owner} both write {table.name}."
            found.append(checks.Error(text, hint=hint, id="projections.E004"))
    return found
