"""How the API's description (OpenAPI) shows the views of consumed messages."""

from __future__ import annotations

from typing import Final

from drf_spectacular.utils import OpenApiParameter

from outbox.api import inputs
from outbox.api.descriptions import described_do, described_read

_MESSAGE: Final = OpenApiParameter("message_id", int, OpenApiParameter.PATH)

consumed: Final = described_read(
    "consumed",
    "Consumed messages that did not go through at once",
    "Dead ones unless `state` names others, newest first. The header `Link` leads to the next page. All that a filter "
    "matches are retried by the operation `outbox.redrive`.",
    400,
    parameters=[inputs.ConsumedQuery],
)
one_consumed: Final = described_read(
    "consumed_message",
    "One consumed message",
    "With its headers, its payload (masked for those who may not read it; null if it is no JSON) and how many messages "
    "of its aggregate wait behind it.",
    404,
    parameters=[_MESSAGE],
)
consumed_redrive: Final = described_do(
    "consumed_redrive",
    "Send a dead message again",
    "A worker of its group handles it with all its attempts, although later ones of its aggregate may have been.",
    400,
    404,
    409,
    request=inputs.OptionalReason,
    parameters=[_MESSAGE],
)
consumed_discard: Final = described_do(
    "consumed_discard",
    "Give a dead message up",
    "It stays on record as discarded, its dead letter stays in Kafka, and what waited behind it goes on.",
    400,
    404,
    409,
    request=inputs.Reason,
    parameters=[_MESSAGE],
)
