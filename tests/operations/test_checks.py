from __future__ import annotations

import sys
from types import ModuleType

import pytest
from django.conf import LazySettings
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.urls import include, path
from rest_framework.permissions import AllowAny

from operations.api.life import LifeView
from operations.checks import check_scopes_are_asked_for

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
