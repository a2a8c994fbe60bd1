from __future__ import annotations

import sys
from types import ModuleType

import pytest
from django.conf import LazySettings
from django.contrib import admin
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.urls import include, path
from rest_framework.permissions import AllowAny

from operations.api.life import LifeView
from operations.checks import (
    check_scopes_are_asked_for,
    check_the_console_has_its_addresses,
    check_the_console_has_its_looks,
)

pytestmark = pytest.mark.feature("A16")


class Opened(LifeView):
    """As in a project that left the framework's default as it is."""

    permission_classes = [AllowAny]


def test_no_address_of_ours_is_open() -> None:
    assert check_scopes_are_asked_for() == []


def test_a_project_that_opens_one_does_not_start(settings: LazySettings, monkeypatch: pytest.MonkeyPatch) -> None:
    urls = ModuleType("opened_urls")
    urls.urlpatterns = [path("deep/", include([path("life", Opened.as_view())]))]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "opened_urls", urls)
    settings.ROOT_URLCONF = "opened_urls"

    (found,) = check_scopes_are_asked_for()

    assert (found.id, "Opened is open to everybody" in found.msg) == ("operations.E001", True)
    with pytest.raises(SystemCheckError):
        call_command("check", "--tag", "security")


def test_the_console_has_what_it_needs_here() -> None:
    assert check_the_console_has_its_addresses() + check_the_console_has_its_looks() == []


def test_a_project_that_leaves_addresses_out_is_told_which(
    settings: LazySettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    urls = ModuleType("bare_urls")
    urls.urlpatterns = [  # type: ignore[attr-defined]
        path("", include("operations.troubles.urls")),
        path("admin/", admin.site.urls),
    ]
    monkeypatch.setitem(sys.modules, "bare_urls", urls)
    settings.ROOT_URLCONF = "bare_urls"

    found = check_the_console_has_its_addresses()

    assert {one.id for one in found} == {"operations.E002"}
    assert ["life" in found[0].msg, "operations.database.urls" in str(found[1].hint)] == [True, True]


def test_a_project_that_finds_the_frame_of_djangos_admin_first_is_told(settings: LazySettings) -> None:
    (engine,) = settings.TEMPLATES
    settings.TEMPLATES = [{**engine, "DIRS": []}]

    (found,) = check_the_console_has_its_looks()

    assert found.id == "operations.W003"
