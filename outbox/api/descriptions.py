"""How the API's description (OpenAPI) shows the views of the outbox."""

from __future__ import annotations

from typing import Any, Final

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiResponse, extend_schema, extend_schema_view

from outbox.api import inputs

_TAGS: Final = ["outbox"]
_PROBLEMS: Final = {
    400: "Not valid.",
    401: "No valid credentials.",
    403: "The credentials do not reach so far.",
    404: "There is no such thing.",
    409: "Not possible as things are now.",
    503: "Too busy, or the database does not answer; Retry-After says when to ask again.",
}
_NAME: Final = OpenApiParameter("name", str, OpenApiParameter.PATH, description="of the subscriber")
_DELIVERY: Final = OpenApiParameter("delivery_id", int, OpenApiParameter.PATH)
_EVENT: Final = {
    "id": 4711,
    "uid": "019a8f6e-6a1b-7c3d-9e4f-5a6b7c8d9e0f",
    "delivery_id": 12,
    "subscriber": "kafka",
    "event_type": "customer.updated",
    "topic": "customers",
    "aggregate_type": "customer",
    "aggregate_id": "019a8f6e-6a1b-7c3d-9e4f-5a6b7c8d9e00",
    "sequence": 3,
    "payload": {"email": "john@example.com"},
    "status": "dead",
    "retry_count": 5,
    "max_retries": 5,
    "next_retry_at": None,
    "error_message": "The broker refused the record.",
}


def described_read(operation: str, summary: str, description: str, *problems: int, **more: Any) -> Any:
    """A view that is read: name, one line, a paragraph, and the statuses of what can go wrong besides."""
    return extend_schema_view(get=_operation(operation, summary, description, 200, problems, **more))


def described_do(operation: str, summary: str, description: str, *problems: int, status: int = 200, **more: Any) -> Any:
    """A view that does something, told likewise."""
    return extend_schema_view(post=_operation(operation, summary, description, status, problems, **more))


def _operation(
    operation: str, summary: str, description: str, status: int, problems: tuple[int, ...], **more: Any
) -> Any:
    answers: dict[int, Any] = {status: OpenApiResponse(OpenApiTypes.OBJECT)}
    answers |= {code: OpenApiResponse(description=_PROBLEMS[code]) for code in sorted({401, 403, 503, *problems})}
    return extend_schema(
        operation_id=f"outbox_{operation}",
        summary=summary,
        description=description,
        tags=_TAGS,
        responses=answers,
        **more,
    )


statistics: Final = described_read(
    "statistics",
    "Statistics of the log",
    "Totals, success and failure rate, what waits, what is dead, and the age of the oldest; by subscriber and topic.",
    400,
)
pending: Final = described_read(
    "pending",
    "Events that wait",
    "The oldest events that some subscriber has not been given yet, retried ones among them. Values of payloads are "
    "masked for those who may not read them.",
    400,
    parameters=[inputs.PendingQuery],
)
dead_letter: Final = described_read(
    "dead_letter",
    "Dead letters",
    "Events that could not be delivered and wait for a person, newest first. The header `Link` leads to the next page.",
    400,
    parameters=[inputs.DeadLetterQuery],
    examples=[OpenApiExample("One", {"events": [_EVENT], "count": 1}, response_only=True)],
)
retry: Final = described_do(
    "retry",
    "Retry a dead event",
    "By its id or uid, for every subscriber with whom it is dead. `success` is false when nothing of it is.",
    400,
    404,
    request=None,
    parameters=[OpenApiParameter("event_id", str, OpenApiParameter.PATH, description="id or uid of the event")],
    examples=[OpenApiExample("Done", {"success": True}, response_only=True)],
)
process: Final = described_do(
    "process",
    "Drain the log now",
    "Brings what waits to the subscribers, for a few seconds each, as relays do by themselves.",
    400,
    request=None,
)
groups: Final = described_read(
    "groups",
    "Failures by kind",
    "Open failures of one destination, class, code and message without its ids and numbers. `replay` is the body of "
    "the operation that retries all of a kind (`POST /api/v1/admin/operations/`, with a reason).",
    400,
    parameters=[inputs.GroupQuery],
)
delivery: Final = described_read(
    "delivery", "One delivery", "With every attempt, newest first.", 404, parameters=[_DELIVERY]
)
delivery_retry: Final = described_do(
    "delivery_retry",
    "Retry a delivery",
    "Now, with a whole ladder before it. One that its aggregate has passed sends the aggregate back to it.",
    400,
    404,
    409,
    request=inputs.OptionalReason,
    parameters=[_DELIVERY],
)
delivery_skip: Final = described_do(
    "delivery_skip",
    "Skip a delivery",
    "It stays on record as skipped, and its aggregate goes on.",
    400,
    404,
    409,
    request=inputs.Reason,
    parameters=[_DELIVERY],
)
delivery_replace: Final = described_do(
    "delivery_replace",
    "Edit and replay",
    "Publishes a new event with another payload, linked to the original, which stays as it was.",
    400,
    404,
    409,
    status=201,
    request=inputs.Replace,
    parameters=[_DELIVERY],
)
subscribers: Final = described_read(
    "subscribers", "Subscribers", "State, limits, backlog in events and seconds, and when it will be drained.", 400
)
subscriber: Final = extend_schema_view(
    get=_operation("subscriber", "One subscriber", "As in the list.", 200, (404,), parameters=[_NAME]),
    patch=_operation(
        "subscriber_limit",
        "Change a subscriber's limits",
        "In force in every process from the next batch on.",
        200,
        (400, 404),
        request=inputs.Limits,
        parameters=[_NAME],
    ),
)
pause: Final = described_do(
    "subscriber_pause",
    "Pause a subscriber",
    "It is given nothing from the next batch on; a call that is under way ends.",
    400,
    404,
    request=inputs.Pause,
    parameters=[_NAME],
)
resume: Final = described_do(
    "subscriber_resume",
    "Resume a subscriber",
    "It goes on where it stopped.",
    400,
    404,
    request=None,
    parameters=[_NAME],
)
probe: Final = described_do(
    "subscriber_probe",
    "Try an absent destination now",
    "Makes the next probe of an open breaker due.",
    400,
    404,
    request=None,
    parameters=[_NAME],
)
republish: Final = described_do(
    "subscriber_republish",
    "Publish a range again",
    "Each aggregate with an event in the range goes back to it and comes forward in order, up to its newest event.",
    400,
    404,
    409,
    request=inputs.Republish,
    parameters=[_NAME],
)
