"""Instants as text, alike in answers and events."""

from __future__ import annotations

from datetime import UTC, datetime


def instant_text(value: datetime) -> str:
    """RFC 3339 in UTC with microseconds, as ``2026-03-01T12:00:00.000000Z``; such texts sort like their instants."""
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
