"""drf-spectacular's settings; apart from the hooks they name, which need Django to be up."""

from __future__ import annotations

from typing import Any, Final

SPECTACULAR: Final[dict[str, Any]] = {
    "TITLE": "Zenskar",
    "DESCRIPTION": "A customer catalogue that is kept the same as your Stripe account.",
    "VERSION": "1",
    "SERVE_INCLUDE_SCHEMA": False,
    "SCHEMA_PATH_PREFIX": "/api/v1",
    "PREPROCESSING_HOOKS": ["zenskar.openapi.published_only"],
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "zenskar.openapi.add_problem_answers",
    ],
    "COMPONENT_SPLIT_REQUEST": True,
    "SORT_OPERATIONS": True,
    # Choices that go by a name which others have too.
    "ENUM_NAME_OVERRIDES": {
        "MethodEnum": "customers.models.SyncRequest.Method",
        "StatusEnum": "customers.models.SyncState.Status",
        "SagaStatusEnum": "customers.models.Saga.Status",
        "SagaStepStatusEnum": "customers.models.SagaStep.Status",
    },
    # The order in which the page of the API lists them: what people come for first.
    "TAGS": [
        {"name": "customers", "description": "The catalogue, and how each customer stands in the integrations."},
        {"name": "outbox", "description": "The log of events and who gets them."},
        {"name": "projections", "description": "Read models made from the log, and what keeps them right."},
        {"name": "troubles", "description": "Everything that needs a person."},
        {"name": "operations", "description": "Long actions: planned, carried out, paused."},
        {"name": "database", "description": "How the database is."},
    ],
}
