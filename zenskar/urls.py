"""All addresses. Each answers with and without its trailing slash, without a redirect."""

from __future__ import annotations

from django.conf import settings
from django.contrib import admin
from django.urls import URLPattern, URLResolver, include, path, re_path
from django.views.generic import RedirectView

from zenskar import health, metrics, openapi

handler400 = "zenskar.problems.bad_request"
handler403 = "zenskar.problems.permission_denied"
handler404 = "zenskar.problems.not_found"
handler500 = "zenskar.problems.server_error"

# Open to strangers; a new one belongs into the list in tests/zenskar/test_strangers.py too.
probes: list[URLPattern | URLResolver] = [
    re_path(r"^livez/?$", health.livez, name="livez"),
    re_path(r"^readyz/?$", health.readyz, name="readyz"),
]

# Each app's addresses; those under admin/ that answer JSON stand before the console's.
apps: list[URLPattern | URLResolver] = [
    path("", include("projections.api.urls")),
    path("", include("projections.console.urls")),
    path("", include("customers.readmodels.urls")),
    path("", include("customers.urls")),
    path("", include("customers.stripe.urls")),
    path("", include("outbox.urls")),
    path("", include("operations.database.urls")),
    path("", include("operations.api.urls")),
    path("", include("operations.troubles.urls")),
    path("", include("operations.life.urls")),
]

if settings.PETSTORE:
    apps.append(path("", include("examples.petstore.urls")))

urlpatterns: list[URLPattern | URLResolver] = [
    *probes,
    re_path(r"^metrics/?$", metrics.MetricsView.as_view(), name="metrics"),
    re_path(r"^api/schema/?$", openapi.SchemaView.as_view(), name="schema"),
    re_path(r"^api/docs/?$", openapi.DocsView.as_view(), name="docs"),
    *apps,
    path("admin/", admin.site.urls),
    # A person who types the bare host wants the console; its login page is all that a stranger gets.
    re_path(r"^$", RedirectView.as_view(pattern_name="admin:index"), name="home"),
]
