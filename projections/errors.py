"""What can go wrong with read models, as types."""

from __future__ import annotations

from django.db.models import TextChoices

from operations.errors import ProblemError


class ErrorClass(TextChoices):
    """Why an event could not be applied.

    transient: the same call may succeed later.
    poison: the event, or the code that applies it, is wrong.
    unknown_type: the projection does not know this type of event; newer code may.
    schema: the payload is not of the shape that the projection reads.
    """

    TRANSIENT = "transient"
    POISON = "poison"
    UNKNOWN_TYPE = "unknown_type"
    SCHEMA = "schema"


class ProjectionError(Exception):
    """The engine refused, or could not do, what it was asked."""


class UnknownProjection(ProblemError, LookupError):
    """There is no projection of this name."""

    status = 404
    code = "unknown_projection"
    title = "Unknown projection"


class ApplyError(ProjectionError):
    """An event could not be applied; raised by ``Projection.apply`` to say what kind of failure it is."""

    error_class = ErrorClass.POISON


class TransientError(ApplyError):
    """A later attempt may succeed."""

    error_class = ErrorClass.TRANSIENT


class UnknownEventType(ApplyError):
    """The projection does not know events of this type."""

    error_class = ErrorClass.UNKNOWN_TYPE


class SchemaMismatch(ApplyError):
    """The payload is not of the shape that the projection reads."""

    error_class = ErrorClass.SCHEMA


class LeaseLost(ProjectionError):
    """Another runner has claimed this read model meanwhile; nothing of the batch was kept."""
