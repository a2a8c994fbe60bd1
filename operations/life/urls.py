from __future__ import annotations

from django.contrib import admin
from django.urls import URLPattern, path

from operations.life.page import life_page

urlpatterns: list[URLPattern] = [
    path("admin/life/", admin.site.admin_view(life_page), name="console-life"),
    path("admin/life", admin.site.admin_view(life_page)),
]
