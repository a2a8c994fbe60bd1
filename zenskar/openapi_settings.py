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
}
