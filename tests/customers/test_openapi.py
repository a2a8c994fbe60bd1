from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

import pytest
import schemathesis
from drf_spectacular.drainage import GENERATOR_STATS
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.validation import validate_schema
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis.core import NotSet
from schemathesis.generation import GenerationMode

from customers.models import Customer
from tests.customers.conftest import Api

pytestmark = pytest.mark.feature("A16")

OPERATIONS = {
    "/api/v1/customers/": ["get", "post"],
    "/api/v1/customers/{customer_id}/": ["get", "put", "patch", "delete"],
    "/api/v1/customers/{customer_id}/sync-health/": ["get"],
    "/api/v1/customers/{customer_id}/conflicts/{conflict_id}/resolution/": ["post"],
}


@pytest.fixture(scope="module")
def description() -> dict[str, Any]:
    GENERATOR_STATS.reset()
    return dict(SchemaGenerator().get_schema(request=None, public=True))


def test_it_is_described_without_warnings(description: dict[str, Any]) -> None:
    validate_schema(description)

    assert not GENERATOR_STATS
    for path, methods in OPERATIONS.items():
        assert set(description["paths"][path]) == set(methods)


@pytest.mark.django_db
@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize(
    ("path", "method"), [(path, method) for path, methods in OPERATIONS.items() for method in methods]
)
def test_it_answers_whatever_is_generated_from_its_description(
    description: dict[str, Any], path: str, method: str, mode: GenerationMode
) -> None:
    """Some requests for each operation and mode; what fits the description, and what does not."""
    operation = schemathesis.openapi.from_dict(description)[path][method.upper()]
    known = set(description["paths"][path][method]["responses"])
    api = Api("customers:read", "customers:write", "operations:write")
    customer = Customer.objects.create(name="Known")
    answered = set()

    @seed(20260301)
    @settings(
        max_examples=20,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode), existing=st.booleans())
    def send(case: Any, existing: bool) -> None:
        target = (
            path.replace("{customer_id}", str(customer.pk)).replace("{conflict_id}", "1")
            if existing
            else case.formatted_path
        )
        query = urlencode(case.query or {}, doseq=True, errors="replace")
        body = case.body
        if not isinstance(body, bytes):
            body = None if isinstance(body, NotSet) else json.dumps(body).encode()
        headers = {
            name: str(value) for name, value in (case.headers or {}).items() if name in ("If-Match", "If-None-Match")
        }

        answer = api(method.upper(), f"{target}?{query}", body, **headers)

        answered.add(answer.status_code)
        assert answer.status_code < 500, (target, query, body, headers)
        assert str(answer.status_code) in known, (target, query, body, headers)
        if answer.status_code >= 400:
            assert answer["Content-Type"] == "application/problem+json"
            assert answer.json().keys() >= {"type", "title", "status", "detail", "code", "errors", "correlation_id"}

    send()

    assert answered
