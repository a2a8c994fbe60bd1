from __future__ import annotations

import json
from typing import Any

import pytest
from django.test import Client

from operations.keys import apikey_create


class Api:
    """A client of the API with a key of its own; bodies are sent as they are, or as JSON."""

    def __init__(self, *scopes: str) -> None:
        issued = apikey_create(name="tests", scopes=scopes, rate_limit=0)
        self._client = Client(headers={"Authorization": issued.authorization})

    def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        sent.setdefault("Content-Type", "application/json")
        kind = sent.pop("Content-Type")
        return self._client.generic(method, path, content, content_type=kind, headers=sent)

    def get(self, path: str, **headers: str) -> Any:
        return self("GET", path, **headers)

    def post(self, path: str, body: Any, **headers: str) -> Any:
        return self("POST", path, body, **headers)

    def put(self, path: str, body: Any, **headers: str) -> Any:
        return self("PUT", path, body, **headers)

    def patch(self, path: str, body: Any, **headers: str) -> Any:
        return self("PATCH", path, body, **headers)

    def delete(self, path: str, **headers: str) -> Any:
        return self("DELETE", path, **headers)


@pytest.fixture
def api(db: None) -> Api:
    return Api("customers:read", "customers:write")


@pytest.fixture
def reader(db: None) -> Api:
    return Api("customers:read")


@pytest.fixture
def operator(db: None) -> Api:
    return Api("customers:read", "customers:write", "operations:read")
