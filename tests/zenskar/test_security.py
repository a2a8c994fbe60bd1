from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.test import Client

ROOT = Path(__file__).parents[2]
PRODUCTION = {
    "PATH": os.environ["PATH"],
    "SECRET_KEY": "".join(chr(48 + number % 75) for number in range(0, 700, 11)),
    "ALLOWED_HOSTS": "zenskar.example",
    "DATABASE_URL": "postgresql://zenskar@db.example/zenskar",
}

PRINT_SETTINGS = """
import json, django
from django.conf import settings
names = ["DEBUG", "ALLOWED_HOSTS", "SECURE_SSL_REDIRECT", "SESSION_COOKIE_SECURE", "CSRF_COOKIE_SECURE",
         "SECURE_HSTS_SECONDS", "SESSION_COOKIE_NAME", "SESSION_COOKIE_SAMESITE", "SESSION_COOKIE_HTTPONLY"]
print(json.dumps({name: getattr(settings, name) for name in names}))
"""


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.feature("A16")
def test_it_passes_the_deployment_checks_without_a_warning() -> None:
    answer = python("manage.py", "check", "--deploy", "--fail-level", "WARNING", **PRODUCTION)

    assert answer.returncode == 0, answer.stderr
    assert "no issues" in answer.stdout


def test_it_does_not_start_without_a_secret_key() -> None:
    answer = python("manage.py", "check", **{k: v for k, v in PRODUCTION.items() if k != "SECRET_KEY"})

    assert answer.returncode != 0
    assert "SECRET_KEY" in answer.stderr


def test_it_is_safe_where_nothing_is_said() -> None:
    bare = {name: PRODUCTION[name] for name in ("PATH", "SECRET_KEY")} | {"DJANGO_SETTINGS_MODULE": "zenskar.settings"}

    answer = python("-c", PRINT_SETTINGS, **bare)

    assert answer.stdout.strip() == (
        '{"DEBUG": false, "ALLOWED_HOSTS": [], "SECURE_SSL_REDIRECT": true, "SESSION_COOKIE_SECURE": true, '
        '"CSRF_COOKIE_SECURE": true, "SECURE_HSTS_SECONDS": 31536000, "SESSION_COOKIE_NAME": "__Host-sessionid", '
        '"SESSION_COOKIE_SAMESITE": "Strict", "SESSION_COOKIE_HTTPONLY": true}'
    ), answer.stderr


@pytest.mark.django_db
@pytest.mark.parametrize(
    "path", ["/livez", "/admin/login/", "/api/v1/customers/", "/nothing", "/static/operations/mark.svg"]
)
def test_it_sends_the_security_headers_with_every_answer(client: Client, path: str) -> None:
    response = client.get(path)

    assert response["X-Content-Type-Options"] == "nosniff"
    assert response["Referrer-Policy"] == "same-origin"
    assert response["Cross-Origin-Opener-Policy"] == "same-origin"
    assert "geolocation=()" in response["Permissions-Policy"]
    policy = dict(part.strip().split(" ", 1) for part in response["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["object-src"] == "'none'"
    assert "unsafe" not in response["Content-Security-Policy"]
    if response.streaming:
        b"".join(response.streaming_content)


def test_it_redirects_to_tls_but_answers_probes_from_inside(client: Client, settings: object) -> None:
    settings.SECURE_SSL_REDIRECT = True  # type: ignore[attr-defined]

    probe, page = client.get("/livez"), client.get("/admin/login/")

    assert probe.status_code == 200
    assert (page.status_code, page["Location"]) == (301, "https://testserver/admin/login/")


@pytest.mark.django_db
def test_it_keeps_answers_out_of_caches(client: Client) -> None:
    response = client.get("/api/v1/customers/")

    assert "no-store" in response["Cache-Control"]
