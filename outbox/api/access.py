"""Who may do what over HTTP: a permission of its own for each action; programs have the scope of their key."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rest_framework.request import Request

from operations.models import ApiKey
from outbox.api.errors import ActionNotAllowed, ActionRefused, InvalidInput, SubscriberNotFound
from outbox.errors import DecisionRefused, InvalidEvent, InvalidFilter, InvalidLimit, UnknownSubscriber


def require(request: Request, permission: str) -> None:
    """Refuse whoever may not; the view has looked at the scope already.

    Raises:
        ActionNotAllowed: a person without the permission.
    """
    if not isinstance(request.auth, ApiKey) and not request.user.has_perm(permission):
        raise ActionNotAllowed(f"This needs the permission {permission}.")


@contextmanager
def told_as_problems() -> Iterator[None]:
    """Tell what the outbox refuses as problems."""
    try:
        yield
    except UnknownSubscriber as exc:
        raise SubscriberNotFound(str(exc)) from exc
    except DecisionRefused as exc:
        raise ActionRefused(str(exc)) from exc
    except (InvalidEvent, InvalidFilter, InvalidLimit) as exc:
        raise InvalidInput(str(exc)) from exc
